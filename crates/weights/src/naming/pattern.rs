//! Patterns of names: literal text, and variables in braces that stand for numbers.

/// The numbers that the variables of a pattern stand for.
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<(&'static str, usize)>);

impl Numbers {
    /// The number of `variable`.
    pub(super) fn get(&self, variable: &str) -> Option<usize> {
        let found = self.0.iter().find(|(name, _)| *name == variable);
        found.map(|&(_, number)| number)
    }
}

/// Matches the beginning of `name` with `pattern`. The result are the numbers, and the rest of the name:
/// empty, or from a dot on.
pub(super) fn capture<'a>(pattern: &'static str, name: &'a str) -> Option<(Numbers, &'a str)> {
    let (mut pattern, mut rest, mut numbers) = (pattern, name, Numbers::default());
    while let Some((literal, after)) = pattern.split_once('{') {
        let (variable, after) = after.split_once('}')?;
        rest = rest.strip_prefix(literal)?;
        let (number, after_number) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        numbers.0.push((variable, parse(number)?));
        (pattern, rest) = (after, after_number);
    }
    rest = rest.strip_prefix(pattern)?;
    (rest.is_empty() || rest.starts_with('.')).then_some((numbers, rest))
}

/// `pattern` with the numbers that `number` gives for its variables.
pub(super) fn expand(
    pattern: &'static str,
    number: impl Fn(&'static str) -> Option<usize>,
) -> Option<String> {
    let (mut pattern, mut name) = (pattern, String::new());
    while let Some((literal, after)) = pattern.split_once('{') {
        let (variable, after) = after.split_once('}')?;
        name.push_str(literal);
        name.push_str(&number(variable)?.to_string());
        pattern = after;
    }
    name.push_str(pattern);
    Some(name)
}

/// The number in `digits`, if it is written as names have it.
fn parse(digits: &str) -> Option<usize> {
    let is_padded = digits.len() > 1 && digits.starts_with('0');
    // No network has more levels or blocks. The limit keeps names in a file from allocating memory.
    let number = digits.parse().ok().filter(|&number| number < 1000);
    number.filter(|_| !is_padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_captured_and_put_back() {
        let (numbers, rest) = capture("a.{i}.b{j}", "a.12.b0.weight").unwrap();
        assert_eq!(
            (numbers.get("i"), numbers.get("j"), rest),
            (Some(12), Some(0), ".weight")
        );
        let name = expand("{j}.c.{i}", |variable| numbers.get(variable));
        assert_eq!(name.as_deref(), Some("0.c.12"));
        assert_eq!(expand("{k}", |variable| numbers.get(variable)), None);
        for name in ["a.x.b0", "a..b0", "a.1.b2x", "a.01.b2", "a.1000.b2", "a.1", "a"] {
            assert!(capture("a.{i}.b{j}", name).is_none(), "{name}");
        }
    }
}
