//! The formatting of times and shares.

/// A time in its shortest readable form: `42 ms`, `1.23 s`, `2:05 min`, `1:02:03 h`.
pub(super) fn time(seconds: f64) -> String {
    // A value that rounds up to the next unit is written in that unit.
    let whole = seconds.round();
    if seconds < 0.9995 {
        format!("{:.0} ms", 1000.0 * seconds)
    } else if seconds < 9.995 {
        format!("{seconds:.2} s")
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if whole < 3600.0 {
        format!("{}:{:02} min", (whole / 60.0) as u64, (whole % 60.0) as u64)
    } else {
        let (minutes, seconds) = ((whole / 60.0) as u64, (whole % 60.0) as u64);
        format!("{}:{:02}:{seconds:02} h", minutes / 60, minutes % 60)
    }
}

/// The label of a tick: [`time`] without trailing zeros.
pub(super) fn tick(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0".to_owned();
    }
    let text = time(seconds);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// The unit, in seconds, of an axis up to `seconds`.
pub(super) fn unit_of(seconds: f64) -> f64 {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 3600.0;
    [HOUR, MINUTE]
        .into_iter()
        .find(|unit| seconds >= 4.0 * unit)
        .unwrap_or(1.0)
}

/// A share in percent, with a decimal if it would round to 0.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent < 9.95 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, text) in [
            (0.0, "0 ms"),
            (0.0421, "42 ms"),
            (0.9996, "1.00 s"),
            (1.234, "1.23 s"),
            (9.999, "10.0 s"),
            (59.94, "59.9 s"),
            (59.96, "1:00 min"),
            (125.2, "2:05 min"),
            (3599.7, "1:00:00 h"),
            (3723.0, "1:02:03 h"),
        ] {
            assert_eq!(time(seconds), text, "{seconds}");
        }
        assert_eq!(
            [3.0, 239.0, 240.0, 20_000.0].map(unit_of),
            [1.0, 1.0, 60.0, 3600.0]
        );
    }

    #[test]
    fn ticks_have_no_needless_decimals() {
        for (seconds, text) in [
            (0.0, "0"),
            (0.25, "250 ms"),
            (1.0, "1 s"),
            (2.5, "2.5 s"),
            (20.0, "20 s"),
            (600.0, "10:00 min"),
        ] {
            assert_eq!(tick(seconds), text);
        }
    }

    #[test]
    fn small_shares_are_not_nothing() {
        assert_eq!(
            [0.0031, 0.0994, 0.3, 1.2].map(percent),
            ["0.3%", "9.9%", "30%", "120%"]
        );
    }
}
