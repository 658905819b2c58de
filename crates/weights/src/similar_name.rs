//! Suggestions for the name of a missing tensor.

/// The maximum number of names that are compared.
const LOOKED_AT: usize = 1 << 14;

/// The first of `names` that equals `missing` with another prefix, or without its prefix.
pub(crate) fn similar<'a>(missing: &str, names: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    names
        .map(String::as_str)
        .take(LOOKED_AT)
        .find(|name| ends_with_parts(name, missing) || ends_with_parts(missing, name))
}

/// Whether `name` ends with the components of `end`. A single component, such as `weight`, does not count.
fn ends_with_parts(name: &str, end: &str) -> bool {
    end.contains('.') && name.strip_suffix(end).is_some_and(|before| before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_another_prefix_is_similar() {
        let names = ["model.conv_in.weight", "layers.3.up.weight"].map(str::to_owned);
        let similar = |missing| similar(missing, names.iter());
        assert_eq!(similar("conv_in.weight"), Some("model.conv_in.weight"));
        assert_eq!(similar("vae.layers.3.up.weight"), Some("layers.3.up.weight"));
        assert_eq!(similar("layers.4.up.weight"), None);
        assert_eq!(similar("layers.3.up.bias"), None);
        assert_eq!(similar("weight"), None);
    }
}
