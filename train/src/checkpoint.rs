//! Checkpoints: one file, written beside the old one and renamed over it, so that a kill at any moment leaves a whole one.
//!
//! The container is safetensors. Numbers that are not f32 are stored as f64 or bytes; everything that the next step depends
//! on is in it, so a continued run computes the same bits as one that was never interrupted (with a budget in steps).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use crate::error::Error;
use crate::student::Student;
use crate::task::Record;

/// Name of the file within the folder.
pub const FILE: &str = "checkpoint.safetensors";

/// What a run knows beside the student.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Steps made.
    pub step: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// State of the size controller.
    pub integral: Option<f64>,
    /// Loss summed since the last point of the curve, and how many steps that are.
    pub pending: (f64, u64),
    /// The curve.
    pub curve: Vec<Record>,
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Writes a checkpoint.
///
/// Errors: [`Error::Io`]; the old checkpoint is still there.
pub fn save(
    folder: &Path,
    student: &Student,
    progress: &Progress,
    fingerprint: u64,
) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let device = Device::Cpu;
    let mut all: HashMap<String, Tensor> = HashMap::new();
    let mut floats = |name: String, values: &[f32]| -> Result<(), Error> {
        if !values.is_empty() {
            all.insert(name, Tensor::from_slice(values, values.len(), &device)?);
        }
        Ok(())
    };
    for (i, layer) in student.layers.iter().enumerate() {
        floats(format!("layer.{i}.weights"), &layer.weights)?;
        floats(format!("layer.{i}.m"), &layer.moments.m)?;
        floats(format!("layer.{i}.v"), &layer.moments.v)?;
        floats(format!("layer.{i}.log_steps"), &layer.log_steps)?;
        floats(format!("layer.{i}.step_m"), &layer.step_moments.m)?;
        floats(format!("layer.{i}.step_v"), &layer.step_moments.v)?;
    }
    for (i, constant) in student.constants.iter().enumerate() {
        floats(format!("constant.{i}.values"), &constant.values)?;
        floats(format!("constant.{i}.m"), &constant.moments.m)?;
        floats(format!("constant.{i}.v"), &constant.moments.v)?;
    }
    for (i, layer) in student.layers.iter().enumerate() {
        if !layer.mask.is_empty() {
            let mask = Tensor::from_slice(&layer.mask, layer.mask.len(), &device)?;
            all.insert(format!("layer.{i}.mask"), mask);
        }
    }
    let dead_zones: Vec<f32> = student.layers.iter().map(|l| l.dead_zone).collect();
    all.insert("dead_zones".into(), Tensor::new(&dead_zones[..], &device)?);
    let scalars = [
        progress.step as f64,
        progress.seconds,
        progress.integral.unwrap_or(f64::NAN),
        progress.pending.0,
        progress.pending.1 as f64,
        student.coding,
    ];
    all.insert("progress".into(), Tensor::new(&scalars, &device)?);
    let curve: Vec<f64> = progress
        .curve
        .iter()
        .flat_map(|r| [r.step as f64, r.loss, r.held_out, r.bytes, r.zeros])
        .collect();
    if !curve.is_empty() {
        all.insert(
            "curve".into(),
            Tensor::from_slice(&curve, curve.len(), &device)?,
        );
    }
    all.insert(
        "fingerprint".into(),
        Tensor::new(&fingerprint.to_le_bytes(), &device)?,
    );

    let target = path(folder);
    let partial = folder.join(format!("{FILE}.partial"));
    candle_core::safetensors::save(&all, &partial).map_err(|e| Error::io(&partial, e))?;
    std::fs::File::open(&partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&partial, &target))
        .map_err(|e| Error::io(&target, e))
}

/// Reads a checkpoint into a student of the same task; none when there is none.
///
/// Errors: [`Error::Input`] when it belongs to another network or other options, [`Error::Io`] when it cannot be read.
pub fn load(
    folder: &Path,
    student: &mut Student,
    fingerprint: u64,
) -> Result<Option<Progress>, Error> {
    let file = path(folder);
    if !file.exists() {
        return Ok(None);
    }
    let all =
        candle_core::safetensors::load(&file, &Device::Cpu).map_err(|e| Error::io(&file, e))?;
    let other = |what: &str| {
        Error::Input(format!(
            "{}: a checkpoint of {what}; name another folder or remove the file",
            file.display()
        ))
    };
    let known: Vec<u8> = all
        .get("fingerprint")
        .ok_or_else(|| other("another program"))?
        .to_vec1()?;
    if known != fingerprint.to_le_bytes() {
        return Err(other("another network, other images or other options"));
    }
    let fill = |name: String, target: &mut Vec<f32>| -> Result<(), Error> {
        if target.is_empty() {
            return Ok(());
        }
        let values: Vec<f32> = all
            .get(&name)
            .ok_or_else(|| other("another network"))?
            .to_vec1()?;
        if values.len() != target.len() {
            return Err(other("another network"));
        }
        *target = values;
        Ok(())
    };
    for (i, layer) in student.layers.iter_mut().enumerate() {
        fill(format!("layer.{i}.weights"), &mut layer.weights)?;
        fill(format!("layer.{i}.m"), &mut layer.moments.m)?;
        fill(format!("layer.{i}.v"), &mut layer.moments.v)?;
        fill(format!("layer.{i}.log_steps"), &mut layer.log_steps)?;
        fill(format!("layer.{i}.step_m"), &mut layer.step_moments.m)?;
        fill(format!("layer.{i}.step_v"), &mut layer.step_moments.v)?;
        if !layer.mask.is_empty() {
            let name = format!("layer.{i}.mask");
            let mask: Vec<u8> = all
                .get(&name)
                .ok_or_else(|| other("another network"))?
                .to_vec1()?;
            if mask.len() != layer.mask.len() {
                return Err(other("another network"));
            }
            layer.mask = mask;
        }
    }
    // The start may have been made coarser, or not, for a budget that is another one now.
    let mut dead_zones: Vec<f32> = student.layers.iter().map(|l| l.dead_zone).collect();
    fill("dead_zones".into(), &mut dead_zones)?;
    for (layer, dead_zone) in student.layers.iter_mut().zip(dead_zones) {
        layer.dead_zone = dead_zone;
    }
    for (i, constant) in student.constants.iter_mut().enumerate() {
        fill(format!("constant.{i}.values"), &mut constant.values)?;
        fill(format!("constant.{i}.m"), &mut constant.moments.m)?;
        fill(format!("constant.{i}.v"), &mut constant.moments.v)?;
    }
    let scalars: Vec<f64> = all
        .get("progress")
        .ok_or_else(|| other("another program"))?
        .to_vec1()?;
    let [step, seconds, integral, loss, steps, coding] = scalars[..] else {
        return Err(other("another version"));
    };
    student.coding = coding;
    let curve: Vec<f64> = match all.get("curve") {
        Some(curve) => curve.to_vec1()?,
        None => Vec::new(),
    };
    Ok(Some(Progress {
        step: step as u64,
        seconds,
        integral: (!integral.is_nan()).then_some(integral),
        pending: (loss, steps as u64),
        curve: curve
            .chunks_exact(5)
            .map(|r| Record {
                step: r[0] as u64,
                loss: r[1],
                held_out: r[2],
                bytes: r[3],
                zeros: r[4],
            })
            .collect(),
    }))
}
