//! An interpreter for the pickle opcodes of a state dict. Nothing is called: each allowed global stands for a
//! value of this module.
//!
//! The opcodes are those of protocols 2 to 4, as Python's `pickletools` documents them.

use std::collections::HashMap;
use std::rc::Rc;

use super::value::{Global, Id, Saved, Storage, Tensor, Value};
use crate::header::MAXIMUM_DIMENSIONS;

/// The maximum number of values. A tensor takes about fifteen. The same limit holds for the stack and the
/// memo, which opcodes of one byte fill.
const MAXIMUM_VALUES: usize = 1 << 20;
/// The maximum length of the name of a storage. Names are copied, so that a small pickle could ask for much
/// memory.
const MAXIMUM_KEY: usize = 64;

/// The reason why a pickle is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It refers to this global.
    Global(String),
    /// It cannot be parsed.
    Damage(String),
}

type Result<T> = std::result::Result<T, Refusal>;

fn damage<T>(reason: impl Into<String>) -> Result<T> {
    Err(Refusal::Damage(format!(
        "its pickle is damaged: {}",
        reason.into()
    )))
}

/// Interprets the pickle `bytes`.
pub(super) fn run(bytes: &[u8]) -> Result<Saved> {
    let mut machine = Machine {
        bytes,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        if let Some(root) = machine.step()? {
            return Ok(Saved {
                values: machine.values,
                root,
            });
        }
    }
}

struct Machine<'a> {
    /// The opcodes that follow.
    bytes: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    /// The height of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Interprets one opcode. The last one returns a value.
    fn step(&mut self) -> Result<Option<Id>> {
        match self.number::<1>()? as u8 {
            // Protocol and framing.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' if self.marks.len() == MAXIMUM_VALUES => return damage("it has too many marks"),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            // Numbers and strings.
            b'N' | 0x88 | 0x89 => self.push(Value::Other)?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)?;
            }
            b'K' => self.push_number::<1>()?,
            b'M' => self.push_number::<2>()?,
            b'J' => {
                let number = self.number::<4>()? as u32;
                self.push(Value::Int(i64::from(number.cast_signed())))?;
            }
            0x8a => self.long()?,
            b'X' | b'T' => self.text::<4>()?,
            0x8c | b'U' => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'B' => self.bytes::<4>()?,
            b'C' => self.bytes::<1>()?,
            0x8e => self.bytes::<8>()?,
            // Containers.
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            count @ 0x85..=0x87 => {
                let items = self.pop_many(usize::from(count) - 0x84)?;
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            // Sets, which hold no tensors.
            0x8f => self.push(Value::Global(Global::OfTraining))?,
            0x90 => drop(self.pop_to_mark()?),
            0x91 => {
                self.pop_to_mark()?;
                self.push(Value::Other)?;
            }
            // The memo.
            b'q' => self.remember::<1>()?,
            b'r' => self.remember::<4>()?,
            0x94 => {
                let (place, value) = (self.memo.len() as u64, self.top()?);
                self.keep(place, value)?;
            }
            b'h' => self.recall::<1>()?,
            b'j' => self.recall::<4>()?,
            // Objects.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let names = self.pop_many(2)?;
                match names.as_slice() {
                    &[module, name] => {
                        let (module, name) = (self.text_of(module)?, self.text_of(name)?);
                        self.global(&module, &name)?;
                    }
                    _ => return damage("a name is missing"),
                }
            }
            b'Q' => self.storage()?,
            b'R' | 0x81 => self.make()?,
            0x92 => {
                // Arguments by name, which no tensor has.
                self.pop()?;
                self.make()?;
            }
            // The state of an object. That of a state dict holds the versions of its modules.
            b'b' => drop(self.pop()?),
            other => return damage(format!("operation {other:#04x} is not one that tensors need")),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => damage("it ends too soon"),
        }
    }

    /// An unsigned little-endian integer of `BYTES` bytes.
    fn number<const BYTES: usize>(&mut self) -> Result<u64> {
        let bytes = self.take(BYTES)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<String> {
        let Some(length) = self.bytes.iter().position(|&byte| byte == b'\n') else {
            return damage("it ends too soon");
        };
        let line = self.take(length)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() >= MAXIMUM_VALUES {
            return damage("it makes too many values");
        }
        self.values.push(value);
        self.push_again(self.values.len() - 1)
    }

    fn push_again(&mut self, value: Id) -> Result<()> {
        if self.stack.len() >= MAXIMUM_VALUES {
            return damage("its stack is too high");
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_number<const BYTES: usize>(&mut self) -> Result<()> {
        let number = self.number::<BYTES>()?;
        self.push(i64::try_from(number).map_or(Value::Other, Value::Int))
    }

    /// An integer of any length. One that exceeds 64 bits is ignored.
    fn long(&mut self) -> Result<()> {
        let length = self.number::<1>()? as usize;
        let bytes = self.take(length)?;
        let value = if length > 8 {
            Value::Other
        } else {
            let sign = bytes.last().is_some_and(|&last| last >= 0x80);
            let mut number = [if sign { 0xff } else { 0 }; 8];
            number[..length].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(number))
        };
        self.push(value)
    }

    /// A string after its length.
    fn text<const BYTES: usize>(&mut self) -> Result<()> {
        let length = usize::try_from(self.number::<BYTES>()?).unwrap_or(usize::MAX);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text))
    }

    /// Bytes after their length.
    fn bytes<const BYTES: usize>(&mut self) -> Result<()> {
        let length = usize::try_from(self.number::<BYTES>()?).unwrap_or(usize::MAX);
        self.take(length)?;
        self.push(Value::Other)
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&top) => Ok(top),
            None => damage("its stack is empty"),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        match self.stack.len().checked_sub(count) {
            Some(rest) => Ok(self.stack.split_off(rest)),
            None => damage("its stack is empty"),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop().filter(|&mark| mark <= self.stack.len()) {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => damage("a mark is missing"),
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            Value::Global(Global::OfTraining) => {}
            _ => return damage("something is appended to what is no list"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Value::Global(Global::OfTraining) => {}
            _ => return damage("something is entered into what is no table"),
        }
        Ok(())
    }

    fn remember<const BYTES: usize>(&mut self) -> Result<()> {
        let (place, value) = (self.number::<BYTES>()?, self.top()?);
        self.keep(place, value)
    }

    fn keep(&mut self, place: u64, value: Id) -> Result<()> {
        if self.memo.len() >= MAXIMUM_VALUES {
            return damage("it remembers too many values");
        }
        self.memo.insert(place, value);
        Ok(())
    }

    fn recall<const BYTES: usize>(&mut self) -> Result<()> {
        let place = self.number::<BYTES>()?;
        match self.memo.get(&place) {
            Some(&value) => self.push_again(value),
            None => damage("it refers to what was not there before"),
        }
    }

    fn text_of(&self, id: Id) -> Result<String> {
        match &self.values[id] {
            Value::Text(text) => Ok(text.clone()),
            _ => damage("a name is no text"),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        match Global::named(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(Refusal::Global(format!("{module}.{name}"))),
        }
    }

    /// A storage: `("storage", its type, its key, …)`.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let storage = self.items(id).and_then(|items| match *items {
            [_, kind, key, ..] => match (&self.values[kind], &self.values[key]) {
                (&Value::Global(Global::StorageType(element_type)), Value::Text(key))
                    if key.len() <= MAXIMUM_KEY =>
                {
                    Some(Rc::new(Storage {
                        key: key.clone(),
                        element_type,
                    }))
                }
                _ => None,
            },
            _ => None,
        });
        match storage {
            Some(storage) => self.push(Value::Storage(storage)),
            None => damage("a storage is not described as PyTorch does"),
        }
    }

    /// The value that the call of a global would return.
    fn make(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let made = match &self.values[callable] {
            // Its arguments are not looked at.
            Value::Global(Global::OfTraining) => Some(Value::Global(Global::OfTraining)),
            Value::Global(global) => self.made(*global, arguments),
            _ => None,
        };
        match made {
            Some(value) => self.push(value),
            None => damage("a tensor is not described as PyTorch does"),
        }
    }

    fn made(&self, global: Global, arguments: Id) -> Option<Value> {
        let arguments = self.items(arguments)?;
        match global {
            Global::OrderedDict => {
                // Later opcodes fill it.
                arguments.is_empty().then(|| Value::Dict(Vec::new()))
            }
            Global::RebuildTensor => match *arguments {
                [storage, first, shape, strides, ..] => Some(Value::Tensor(Rc::new(Tensor {
                    storage: match &self.values[storage] {
                        Value::Storage(storage) => storage.clone(),
                        _ => return None,
                    },
                    first: self.size(first)?,
                    shape: self
                        .sizes(shape)?
                        .into_iter()
                        .map(|size| usize::try_from(size).ok())
                        .collect::<Option<_>>()?,
                    strides: self.sizes(strides)?,
                }))),
                _ => None,
            },
            Global::RebuildParameter => match &self.values[*arguments.first()?] {
                Value::Tensor(tensor) => Some(Value::Tensor(tensor.clone())),
                _ => None,
            },
            Global::StorageType(_) => None,
            Global::OfTraining => None,
        }
    }

    fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id] {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    fn size(&self, id: Id) -> Option<u64> {
        match self.values[id] {
            Value::Int(size) => u64::try_from(size).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        let sizes = self.items(id).filter(|sizes| sizes.len() <= MAXIMUM_DIMENSIONS)?;
        sizes.iter().map(|&id| self.size(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> Refusal {
        run(bytes).unwrap_err()
    }

    #[test]
    fn tables_lists_and_numbers_are_made() {
        // {"a": 258, "b": [-1, True]}, with the text "a" taken from the memo once more.
        let saved = run(b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01M\x02\x01U\x01b](J\xff\xff\xff\xff\x88eh\x01\x8a\x01\xfeu.").unwrap();
        let Value::Dict(pairs) = &saved.values[saved.root] else {
            panic!("{saved:?}");
        };
        let shown: Vec<(&Value, &Value)> = pairs
            .iter()
            .map(|&(key, value)| (&saved.values[key], &saved.values[value]))
            .collect();
        assert_eq!(shown[0], (&Value::Text("a".into()), &Value::Int(258)));
        let Value::List(items) = shown[1].1 else {
            panic!("{shown:?}");
        };
        assert_eq!(
            (&saved.values[items[0]], &saved.values[items[1]]),
            (&Value::Int(-1), &Value::Other)
        );
        assert_eq!(shown[2], (&Value::Text("a".into()), &Value::Int(-2)));
    }

    #[test]
    fn what_training_keeps_is_passed_over() {
        // {"callbacks": ModelCheckpoint(**state), "scalar": numpy scalar, "a": 1}, as two programs write them.
        let saved = run(b"\x80\x02}(X\x09\x00\x00\x00callbackscpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n)\x81}X\x01\x00\x00\x00xK\x01sbX\x06\x00\x00\x00scalarcnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RC\x08\x00\x00\x00\x00\x00\x00\x00\x00\x86RX\x01\x00\x00\x00aK\x01u.").unwrap();
        let Value::Dict(pairs) = &saved.values[saved.root] else {
            panic!("{saved:?}");
        };
        let shown: Vec<&Value> = pairs.iter().map(|&(_, value)| &saved.values[value]).collect();
        let passed_over = Value::Global(Global::OfTraining);
        assert_eq!(shown, [&passed_over, &passed_over, &Value::Int(1)]);
        for other in ["numpyx.core", "pytorch_lightningx", "os.numpy"] {
            assert_eq!(Global::named(other, "x"), None, "{other}");
        }
    }

    #[test]
    fn what_could_run_is_refused_by_its_name() {
        let global = |bytes: &[u8], name: &str| assert_eq!(refused(bytes), Refusal::Global(name.into()));
        global(
            b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.",
            "posix.system",
        );
        global(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval");
        global(b"ctorch\nUnknownStorage\n.", "torch.UnknownStorage");
    }

    #[test]
    fn damage_is_reported() {
        for bytes in [
            &b""[..],
            b".",
            b"}",
            b"X\xff\xff\xff\xffa.",
            b"u.",
            b"Ns.",
            b"h\x07.",
            b"NNR.",
            b"NQ.",
            b"ccollections\nOrderedDict\nNR.",
            b"(}(1u.",
            b"i",
        ] {
            assert!(matches!(refused(bytes), Refusal::Damage(_)), "{bytes:?}");
        }
    }
}
