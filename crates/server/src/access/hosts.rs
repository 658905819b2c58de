//! The names under which clients may ask for this machine, and the pages that may use it.
//!
//! A page of another host can make a browser send requests to this machine, and a name of that host can be made to stand
//! for this machine's address (DNS rebinding). The first has another `Origin`, the second another `Host`.

use std::net::IpAddr;

/// Whether `host`, the header of a request, is an address, `localhost`, or one of `names`.
pub(crate) fn is_known_host(host: &str, names: &[String]) -> bool {
    let name = without_port(host);
    let is_address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
        .is_ok();
    is_address
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether a page of `origin` may use the server that is asked for as `host`: its own page, or one of `allowed`.
pub(crate) fn is_same_origin(origin: &str, host: &str, allowed: &[String]) -> bool {
    let of_host = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        .is_some_and(|own| own.eq_ignore_ascii_case(host));
    of_host || allowed.iter().any(|own| own.eq_ignore_ascii_case(origin))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
            // An address of version 6 has colons of its own, and brackets if a port follows.
            if name.contains(':') && !name.starts_with('[') {
                host
            } else {
                name
            }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_not_those_of_this_machine() {
        let names = ["studio.local".to_owned()];
        for known in [
            "127.0.0.1:7860",
            "localhost",
            "LOCALHOST:1",
            "[::1]:7860",
            "::1",
            "10.0.0.7",
            "studio.local:80",
        ] {
            assert!(is_known_host(known, &names), "{known}");
        }
        for other in [
            "evil.example",
            "evil.example:7860",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(!is_known_host(other, &names), "{other}");
        }
    }

    #[test]
    fn pages_of_others_are_refused() {
        let allowed = ["https://studio.example".to_owned()];
        let may = |origin: &str| is_same_origin(origin, "localhost:7860", &allowed);
        assert!(may("http://localhost:7860") && may("https://studio.example"));
        for other in [
            "null",
            "http://localhost:1",
            "http://evil.example",
            "https://studio.example.evil",
            "file://",
        ] {
            assert!(!may(other), "{other}");
        }
    }
}
