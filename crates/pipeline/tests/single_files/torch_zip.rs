//! Files as `torch.save` writes them: an archive with a pickle and the storages.

use crate::model::{Tensor, Tensors};

/// The file of `{"state_dict": tensors}`.
pub(crate) fn file(tensors: &Tensors) -> Vec<u8> {
    let mut archive = Archive::default();
    let mut pickle = b"\x80\x02}".to_vec();
    text(&mut pickle, "state_dict");
    pickle.extend(b"}(");
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        text(&mut pickle, name);
        rebuild(&mut pickle, tensor, index);
    }
    pickle.extend(b"us.");
    archive.add("archive/data.pkl", &pickle);
    for (index, tensor) in tensors.values().enumerate() {
        archive.add(&format!("archive/data/{index}"), &tensor.bytes);
    }
    archive.add("archive/version", b"3\n");
    archive.finish()
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.as_bytes());
}

fn number(pickle: &mut Vec<u8>, number: usize) {
    pickle.push(b'J');
    pickle.extend(i32::try_from(number).unwrap().to_le_bytes());
}

fn tuple(pickle: &mut Vec<u8>, numbers: &[usize]) {
    pickle.push(b'(');
    for &one in numbers {
        number(pickle, one);
    }
    pickle.push(b't');
}

/// A call of `_rebuild_tensor_v2` with the whole storage `index`.
fn rebuild(pickle: &mut Vec<u8>, tensor: &Tensor, index: usize) {
    let shape = &tensor.shape;
    let strides: Vec<usize> = (1..=shape.len())
        .map(|first| shape[first..].iter().product())
        .collect();
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(pickle, "storage");
    let class = match tensor.element_type {
        safetensors::Dtype::F16 => "HalfStorage",
        safetensors::Dtype::F32 => "FloatStorage",
        safetensors::Dtype::I64 => "LongStorage",
        other => panic!("{other:?}"),
    };
    pickle.extend(format!("ctorch\n{class}\n").bytes());
    text(pickle, &index.to_string());
    text(pickle, "cpu");
    number(pickle, shape.iter().product());
    pickle.extend(b"tQ");
    number(pickle, 0);
    tuple(pickle, shape);
    tuple(pickle, &strides);
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
}

/// A zip archive whose entries are stored.
#[derive(Default)]
struct Archive {
    file: Vec<u8>,
    list: Vec<u8>,
    entries: u16,
}

impl Archive {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        let offset = self.file.len() as u32;
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // The checksum, which readers of weights do not compare.
        common.extend(0_u32.to_le_bytes());
        common.extend([(bytes.len() as u32).to_le_bytes(); 2].concat());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        self.file.extend(b"PK\x03\x04");
        self.file.extend(&common);
        self.file.extend(name.as_bytes());
        self.file.extend(bytes);
        self.list.extend(b"PK\x01\x02\x14\x00");
        self.list.extend(&common);
        self.list.extend([0; 10]);
        self.list.extend(offset.to_le_bytes());
        self.list.extend(name.as_bytes());
        self.entries += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let (offset, length) = (self.file.len() as u32, self.list.len() as u32);
        self.file.extend(self.list);
        self.file.extend(b"PK\x05\x06\0\0\0\0");
        self.file.extend([self.entries.to_le_bytes(); 2].concat());
        self.file.extend(length.to_le_bytes());
        self.file.extend(offset.to_le_bytes());
        self.file.extend([0, 0]);
        self.file
    }
}
