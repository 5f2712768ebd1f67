//! Embeddings of many images: one session per core over a shared queue of files.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dcz::preprocess::dims;
use dcz::{Model, Session, SessionOptions, TensorRef};
use dcz_format::graph::{Meaning, Metric, Network};

use super::images::{Loader, name};
use crate::error::Error;

/// Embeddings of images, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// Names of the images, without extension.
    pub names: Vec<String>,
    /// One embedding per image.
    pub rows: Vec<Vec<f32>>,
    /// What was wrong with images that were skipped.
    pub skipped: Vec<String>,
}

/// The output that is an embedding: the one the file calls so, else the only one. Its name, length and metric.
///
/// Errors: [`Error::Usage`] when there is no such output, or more than one input.
pub fn output_of(network: &Network) -> Result<(String, Metric), Error> {
    if network.inputs.len() != 1 {
        return Err(Error::Usage(format!(
            "'{}' has {} inputs; one image cannot be all of them",
            network.name,
            network.inputs.len()
        )));
    }
    let mut meant = network
        .outputs
        .iter()
        .filter_map(|output| match output.meaning {
            Meaning::Embedding { metric, .. } => Some((output, metric)),
            _ => None,
        });
    let (output, metric) = match (meant.next(), network.outputs.as_slice()) {
        (Some(found), _) => found,
        (None, [only]) => (only, Metric::Cosine),
        (None, all) => {
            return Err(Error::Usage(format!(
                "'{}' has {} outputs and none is called an embedding; say which one in --preprocess",
                network.name,
                all.len()
            )));
        }
    };
    let tensor = network.tensors.get(output.tensor.0 as usize);
    Ok((tensor.map(|t| t.name.clone()).unwrap_or_default(), metric))
}

/// Runs a network over image files on all cores. `progress(done, all)` is called from several threads.
///
/// An image that cannot be read is skipped, or with `strict` the error.
pub fn embed(
    model: &Model,
    network: Option<&str>,
    paths: &[PathBuf],
    loader: &Loader,
    strict: bool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Embeddings, Error> {
    let (output, _) = output_of(model.network(network)?)?;
    let results = Mutex::new(vec![None; paths.len()]);
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || -> Result<(), Error> {
        let mut worker = Worker::new(model, network, loader, &output)?;
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(index) else { break };
            let result = match loader.load(path) {
                Ok(input) => Ok(worker.run(&input)?),
                Err(error) if strict => return Err(error),
                Err(error) => Err(error.to_string()),
            };
            if let Ok(mut results) = results.lock() {
                results[index] = Some(result);
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, paths.len());
        }
        Ok(())
    };
    let failed = parallel(&|| work().inspect_err(|_| stop.store(true, Ordering::Relaxed)));
    if let Some(error) = failed {
        return Err(error);
    }
    let mut all = Embeddings::default();
    let results = results.into_inner().unwrap_or_default();
    for (path, result) in paths.iter().zip(results) {
        match result {
            Some(Ok(row)) => {
                all.names.push(name(path));
                all.rows.push(row);
            }
            Some(Err(why)) => all.skipped.push(why),
            None => return Err(Error::Input(format!("{}: not run", path.display()))),
        }
    }
    Ok(all)
}

/// Runs `work` on as many threads as there are cores; the first error.
pub(crate) fn parallel(work: &(dyn Fn() -> Result<(), Error> + Sync)) -> Option<Error> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .filter_map(|thread| match thread.join() {
                Ok(result) => result.err(),
                Err(_) => Some(Error::SelfTest("a thread ended abnormally".into())),
            })
            .next()
    })
}

/// A session with its names.
struct Worker<'a> {
    session: Session,
    input: String,
    output: &'a str,
    dims: [usize; 4],
    len: usize,
}

impl<'a> Worker<'a> {
    fn new(
        model: &Model,
        network: Option<&str>,
        loader: &Loader,
        output: &'a str,
    ) -> Result<Worker<'a>, Error> {
        let mut options = SessionOptions::default();
        options.network = network.map(str::to_string);
        let mut session = Session::new(model, options)?;
        let records = session.network();
        let input = records.inputs.first();
        let input = input.and_then(|id| records.tensors.get(id.0 as usize));
        let input = input.map(|t| t.name.clone()).unwrap_or_default();
        let dims = dims(&loader.record);
        let plan = session.prepare(&[(&input, &dims)])?;
        let len = plan
            .outputs
            .iter()
            .find(|(name, _)| *name == output)
            .map_or(0, |(_, dims)| dims.iter().product());
        Ok(Worker {
            session,
            input,
            output,
            dims,
            len,
        })
    }

    fn run(&mut self, input: &[f32]) -> Result<Vec<f32>, Error> {
        let mut row = vec![0.0; self.len];
        let tensor = TensorRef {
            data: input,
            dims: &self.dims,
        };
        self.session
            .run(&[(&self.input, tensor)], &mut [(self.output, &mut row)])?;
        Ok(row)
    }
}
