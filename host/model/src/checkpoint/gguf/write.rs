//! Writes GGUF files, version 3.

use super::metadata::{Metadata, Numbers, Strings, Value};
use crate::ModelError;
use crate::checkpoint::write::{NewTensor, TensorBytes, refuse, write_beside, write_tensor};
use std::io::Write;
use std::path::Path;

const ALIGNMENT: usize = 32;

/// Writes `metadata` and `tensors`, whose names and row order are GGUF's own, to `path`.
///
/// Integers are written as u32 or i32 where they fit, which is what readers expect of them, floats as f32.
///
/// # Errors
/// [`ModelError::Tensor`] for a tensor that the format cannot hold, [`ModelError::Read`] for a file that cannot be
/// written.
pub fn write_gguf(
    path: &Path,
    metadata: &Metadata,
    tensors: &[NewTensor],
    bytes: TensorBytes<'_>,
) -> Result<(), ModelError> {
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.0.len() as u64).to_le_bytes());
    for (key, value) in &metadata.0 {
        put_string(&mut header, key);
        put_value(&mut header, value);
    }
    let mut sizes = Vec::with_capacity(tensors.len());
    let mut offset = 0usize;
    for tensor in tensors {
        let fits =
            tensor.name.len() < super::MAX_NAME_BYTES && (1..=super::MAX_DIMS as usize).contains(&tensor.shape.len());
        let size = tensor.size_bytes().filter(|_| fits);
        let size = size.ok_or_else(|| refuse(path, tensor, "cannot stand in a GGUF file"))?;
        put_string(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        // The fastest dimension comes first here.
        header.extend(tensor.shape.iter().rev().flat_map(|&dim| (dim as u64).to_le_bytes()));
        header.extend(tensor.ty.gguf_id().to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += size.next_multiple_of(ALIGNMENT);
        sizes.push(size);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    write_beside(path, |file| {
        file.write_all(&header).map_err(|e| ModelError::read(path, e))?;
        for (i, tensor) in tensors.iter().enumerate() {
            write_tensor(file, path, tensor, sizes[i], bytes(i)?)?;
            let padding = sizes[i].next_multiple_of(ALIGNMENT) - sizes[i];
            file.write_all(&[0; ALIGNMENT][..padding]).map_err(|e| ModelError::read(path, e))?;
        }
        Ok(())
    })
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut scalar = |ty: u32, bytes: &[u8]| {
        out.extend(ty.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::Unsigned(n) => match u32::try_from(*n) {
            Ok(n) => scalar(4, &n.to_le_bytes()),
            Err(_) => scalar(10, &n.to_le_bytes()),
        },
        Value::Signed(n) => match i32::try_from(*n) {
            Ok(n) => scalar(5, &n.to_le_bytes()),
            Err(_) => scalar(11, &n.to_le_bytes()),
        },
        Value::Float(x) => scalar(6, &(*x as f32).to_le_bytes()),
        Value::Bool(b) => scalar(7, &[u8::from(*b)]),
        Value::String(text) => {
            scalar(8, &[]);
            put_string(out, text);
        }
        Value::Strings(strings) => put_strings(out, strings),
        Value::Numbers(Numbers { ty, bytes }) => {
            let count = bytes.len() / super::scalar_bytes(*ty).unwrap_or(1);
            scalar(9, &ty.to_le_bytes());
            out.extend((count as u64).to_le_bytes());
            out.extend(bytes);
        }
    }
}

fn put_strings(out: &mut Vec<u8>, strings: &Strings) {
    out.extend(9u32.to_le_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend((strings.len() as u64).to_le_bytes());
    strings.iter().for_each(|text| put_string(out, text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;
    use stockade_kernels::{WeightType, quantize};

    #[test]
    fn a_file_reads_back_with_every_kind_of_value_and_its_tensors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let values = [
            ("a.count", Value::Unsigned(7)),
            ("a.large", Value::Unsigned(1 << 40)),
            ("a.negative", Value::Signed(-7)),
            ("a.number", Value::Float(0.5)),
            ("a.flag", Value::Bool(true)),
            ("a.text", Value::String("text".into())),
            ("a.texts", Value::Strings(["", "b\u{1}c", "d"].into_iter().collect())),
            ("a.numbers", Value::Numbers([1i32, -2].into_iter().collect())),
        ];
        let metadata: Metadata = values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let tensor = |name: &str, ty, shape: &[usize]| NewTensor { name: name.into(), ty, shape: shape.to_vec() };
        let tensors = [
            tensor("odd", WeightType::F32, &[3]),
            tensor("blk.0.attn_v.weight", WeightType::Q8_0, &[2, 64]),
            tensor("last", WeightType::F16, &[1, 5]),
        ];
        let contents: Vec<Vec<u8>> = tensors
            .iter()
            .map(|tensor| {
                let count: usize = tensor.shape.iter().product();
                let mut bytes = Vec::new();
                let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
                quantize(tensor.ty, &numbers, &mut bytes).unwrap();
                bytes
            })
            .collect();
        write_gguf(&path, &metadata, &tensors, &mut |i| Ok(contents[i].clone())).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        for (key, value) in &values {
            assert_eq!(checkpoint.metadata().unwrap().get(key), Some(value), "{key}");
        }
        let read = |name: &str| checkpoint.read(checkpoint.tensor(name).unwrap()).unwrap();
        assert_eq!(read("odd"), contents[0]);
        assert_eq!(read("model.layers.0.self_attn.v_proj.weight"), contents[1]);
        assert_eq!(read("last"), contents[2]);
        let wrong = write_gguf(&path, &metadata, &tensors, &mut |_| Ok(vec![0]));
        assert!(matches!(wrong, Err(ModelError::Tensor { .. })));
        // The failed attempt left the file as it was.
        assert!(Checkpoint::open(&path).is_ok());
    }
}
