//! Calls that may panic in code that is not ours: the panic becomes a message.

use std::any::Any;
use std::panic::{self, PanicHookInfo, UnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Calls `may_panic`. If it panics, nothing is printed.
///
/// # Errors
/// The message of the panic, on one line.
pub(crate) fn caught_panic<T>(may_panic: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;
    // Two calls at a time would restore each other's hooks.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let hook: Arc<Hook> = panic::take_hook().into();
    let (quiet, others) = (thread::current().id(), hook.clone());
    // The hook is the process's: panics of other threads are still printed.
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() != quiet {
            others(info);
        }
    }));
    let outcome = panic::catch_unwind(may_panic);
    panic::set_hook(Box::new(move |info| hook(info)));
    outcome.map_err(|payload| message(payload.as_ref()))
}

/// The first line of what a panic was raised with.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied());
    let line = text.and_then(|text| text.lines().next());
    line.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught_panic(|| 3), Ok(3));
        let formatted = caught_panic(|| -> () { panic!("no class {}\nwas found", "MTLThing") });
        assert_eq!(formatted, Err("no class MTLThing".to_owned()));
        let plain = caught_panic(|| -> () { panic!("plain") });
        assert_eq!(plain, Err("plain".to_owned()));
        let other = caught_panic(|| -> () { panic::panic_any(7) });
        assert_eq!(other, Err("a panic without a message".to_owned()));
        // What the standard library panics with where there is no device.
        let empty = caught_panic(|| Vec::<u8>::new().swap_remove(0));
        assert!(empty.is_err_and(|message| message.contains("swap_remove")));
    }
}
