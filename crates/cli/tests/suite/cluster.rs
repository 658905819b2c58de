//! `generate serve --queue` with workers: a worker is killed, and no image is lost or another one.
//!
//! `crates/server/tests/clients/cluster.py` does the work, and more with other options. It needs Python and nats-server.

use std::path::Path;
use std::process::Command;

#[test]
fn a_worker_that_dies_loses_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let script = root.join("crates/server/tests/clients/cluster.py");
    let run = Command::new("python3")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_generate"))
        .args([
            "--jobs",
            "20",
            "--kill-every",
            "0.5",
            "--most-kills",
            "1",
            "--within",
            "120",
        ])
        .output();
    let Ok(run) = run else {
        println!("not checked: Python is not installed");
        return;
    };
    let printed = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    println!("{printed}");
}
