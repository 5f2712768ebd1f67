//! Reading and writing `.npy` files.

use crate::failure::Failure;
use crate::{Input, Output};
use dcz::graph::Network;
use npyz::WriterBuilder;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

/// Reads `[NAME=]FILE.npy` arguments; the name may be left out for a network with one input.
pub fn read(arguments: &[String], network: &Network) -> Result<Vec<Input>, Failure> {
    let names: Vec<&str> = network
        .inputs
        .iter()
        .filter_map(|id| network.tensors.get(id.0 as usize))
        .map(|t| t.name.as_str())
        .collect();
    if arguments.len() > names.len() {
        let text = format!(
            "{} has {} input(s): {}",
            network.name,
            names.len(),
            names.join(", ")
        );
        return Err(Failure::usage(text));
    }
    let mut inputs: Vec<Input> = Vec::with_capacity(arguments.len());
    for text in arguments {
        let named = text
            .split_once('=')
            .filter(|(name, _)| names.contains(name));
        let (name, path) = match (named, names.as_slice()) {
            (Some(pair), _) => pair,
            (None, [only]) if !text.contains('=') || Path::new(text).exists() => {
                (*only, text.as_str())
            }
            (None, _) => {
                let list = names.join(", ");
                return Err(Failure::usage(format!(
                    "--input {text}: want NAME=FILE, NAME one of {list}"
                )));
            }
        };
        if inputs.iter().any(|i| i.name == name) {
            return Err(Failure::usage(format!("input {name} is given twice")));
        }
        let (dims, data) = read_file(Path::new(path))?;
        inputs.push(Input {
            name: name.to_string(),
            dims,
            data,
        });
    }
    Ok(inputs)
}

fn read_file(path: &Path) -> Result<(Vec<usize>, Vec<f32>), Failure> {
    let file = File::open(path).map_err(|e| Failure::io(path, e))?;
    let size = file.metadata().map_err(|e| Failure::io(path, e))?.len();
    let wrong = |why: &str| Failure::input(path, why);
    let array = npyz::NpyFile::new(BufReader::new(file)).map_err(|_| wrong("not a .npy file"))?;
    if array.order() != npyz::Order::C {
        return Err(wrong("the array is in Fortran order; C order is needed"));
    }
    if !array.dtype().descr().contains("<f4") {
        return Err(wrong(&format!(
            "type {}; float32 is needed",
            array.dtype().descr()
        )));
    }
    let dims: Vec<usize> = array
        .shape()
        .iter()
        .filter_map(|&d| usize::try_from(d).ok())
        .collect();
    // The header is not trusted before memory is reserved for what it says.
    let count = array
        .shape()
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d));
    if dims.len() != array.shape().len() || count.is_none_or(|n| n > size / 4) {
        return Err(wrong("the file is shorter than its header says"));
    }
    let data = array
        .into_vec::<f32>()
        .map_err(|e| Failure::input(path, e))?;
    Ok((dims, data))
}

/// Writes one output to a file, or all to NAME.npy in a directory. Files appear whole or not at all.
/// Answers a line that says what was written.
pub fn write(path: &Path, outputs: &[Output]) -> Result<String, Failure> {
    let folder =
        path.is_dir() || outputs.len() != 1 || path.as_os_str().to_string_lossy().ends_with('/');
    if !folder {
        if let Some(output) = outputs.first() {
            write_file(path, output)?;
        }
        return Ok(format!("wrote {}", path.display()));
    }
    std::fs::create_dir_all(path).map_err(|e| Failure::io(path, e))?;
    for output in outputs {
        write_file(&path.join(file_name(&output.name)), output)?;
    }
    Ok(format!(
        "wrote {} file(s) to {}",
        outputs.len(),
        path.display()
    ))
}

/// Names of tensors may hold anything; files get a plain name.
fn file_name(tensor: &str) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    format!("{}.npy", tensor.chars().map(plain).collect::<String>())
}

fn write_file(path: &Path, output: &Output) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let shape: Vec<u64> = output.dims.iter().map(|&d| d as u64).collect();
    let encoded = (|| {
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&shape)
            .writer(&mut bytes)
            .begin_nd()?;
        writer.extend(output.data.iter().copied())?;
        writer.finish()
    })();
    encoded.map_err(|e| Failure::io(path, e))?;
    write_whole(path, &bytes)
}

/// Writes a file that appears whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if path.exists() && !path.is_file() {
        return Err(Failure::io(path, "exists and is not a regular file"));
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| {
        // Nothing half-written stays behind.
        let _ = std::fs::remove_file(&temporary);
        Failure::io(path, e)
    })
}
