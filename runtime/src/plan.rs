//! A plan as plain data: what every step does, where its tensors lie and what it costs in memory.
//! `infer --plan` prints it, tests compare it, users paste it into reports.

use crate::liveness::Span;
use crate::planner;
use crate::program::{Layout, Place, Program, Step, Value, Work};
use crate::resident::ResidentForm;
use crate::weights;
use dcz_format::graph::Network;
use dcz_format::layer::{Steps, Values};
use dcz_kernels::{ALGOS, Isa};
use serde::Serialize;
use std::fmt::{self, Write};

/// Every byte a session holds or allocates, by purpose. The caller's tensors, the parsed records of
/// the model, thread stacks and mapped pages are not part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Activations: one allocation.
    pub arena: u64,
    /// Decode tables of all threads.
    pub decode: u64,
    /// Scratch of all threads, decoded tiles included, that finds no room in the arena; allocated together with it.
    pub workspace: u64,
    /// Weights kept between runs, counted in full. All sessions of a model that keep a layer in the
    /// same form share it.
    pub resident: u64,
    /// Biases, slopes and other small constants.
    pub constants: u64,
    /// Look-up tables of layers, programs and plans in the cache, and 60 bytes so that the arena begins at a line of the cache.
    pub tables: u64,
    /// The sum.
    pub total: u64,
}

impl Memory {
    pub(crate) fn summed(self) -> Memory {
        let own = self.arena + self.decode + self.workspace + self.constants + self.tables;
        Memory {
            total: own + self.resident,
            ..self
        }
    }
}

/// Where the weights of a step come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Decoded tile by tile in every run.
    Decode,
    /// Kept as codes, one byte per weight; layers without codes as f32.
    Codes,
    /// Kept as f32.
    Float,
    /// Kept as f32, transformed for Winograd.
    Winograd,
    /// Kept in 16 bits, transformed for Winograd.
    Winograd16,
    /// Kept in the frequency domain.
    Fft,
    /// Kept as lists of what is not zero.
    Lists,
}

impl Tier {
    /// The name in plans.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Decode => "decode",
            Tier::Codes => "codes",
            Tier::Float => "float",
            Tier::Winograd => "winograd",
            Tier::Winograd16 => "winograd16",
            Tier::Fft => "fft",
            Tier::Lists => "lists",
        }
    }
}

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// In the caller's input of this index.
    Input(usize),
    /// In the arena (f32 elements).
    Arena(Span),
    /// In the caller's output of this index.
    Output(usize),
}

/// A tensor of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operand {
    /// Where.
    pub location: Location,
    /// Dimensions.
    pub dims: Vec<usize>,
    /// `nchw` or `rows` (`[n][row][channel][column]`).
    pub layout: &'static str,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanStep {
    /// Name of the node, or of the output for exports.
    pub name: String,
    /// Operation.
    pub op: &'static str,
    /// Name of the kernel, when there is a choice.
    pub algorithm: Option<String>,
    /// Where its weights come from.
    pub tier: Option<Tier>,
    /// Bytes of weights kept for it.
    pub resident_bytes: u64,
    /// Predicted time on one thread, from the cost table.
    pub predicted_ms: f64,
    /// Names of further nodes whose work this step does.
    pub fused: Vec<String>,
    /// What it reads.
    pub inputs: Vec<Operand>,
    /// What it writes.
    pub output: Operand,
    /// The output takes the place of an operand, or is added to it.
    pub in_place: bool,
    /// Tiles of weights decoded.
    pub tiles: usize,
    /// Most neighbouring ones that are computed together.
    pub joined_tiles: usize,
    /// Bytes of coded weights read.
    pub coded_bytes: u64,
    /// Threads used.
    pub threads: usize,
    /// Threads take panels of output channels instead of rows.
    pub by_panels: bool,
    /// The step runs strip by strip with its neighbours.
    pub band: Option<PlanBand>,
    /// Bytes of all activations alive during the step.
    pub live_bytes: u64,
}

/// How a band computes one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlanBand {
    /// First step of the band.
    pub first: usize,
    /// Steps of the band.
    pub steps: usize,
    /// Rows of the last step's output per strip.
    pub strip: usize,
    /// Strips per image.
    pub strips: usize,
    /// Most rows of this step in a strip.
    pub rows: usize,
    /// Rows of the output that exist at a time; none: all.
    pub window: Option<usize>,
    /// Bytes of the decoded weights that the band keeps while it runs.
    pub bank_bytes: u64,
}

/// How a network is executed for given input shapes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the network.
    pub network: String,
    /// Instruction set.
    pub isa: &'static str,
    /// Threads used at most; fewer than the session has when the budget is too small for all.
    pub threads: usize,
    /// Threads of the session.
    pub threads_available: usize,
    /// Predicted time on one thread, from the cost table.
    pub predicted_ms: f64,
    /// Name and dimensions of the inputs.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// Name and dimensions of the outputs.
    pub outputs: Vec<(String, Vec<usize>)>,
    /// In execution order.
    pub steps: Vec<PlanStep>,
    /// Memory of the session with this plan.
    pub memory: Memory,
    /// The step with the largest live activations.
    pub peak_step: usize,
    /// Hash of everything that determines the bits of a result: equal numbers, equal bits. Threads,
    /// batch size and budget are not part of it.
    pub numeric_id: u64,
}

/// Room for the name of an algorithm.
const ALGORITHM_NAME: usize = 48;

impl Plan {
    /// Elements of the output of this name.
    pub fn output_len(&self, name: &str) -> Option<usize> {
        let (_, dims) = self.outputs.iter().find(|(n, _)| n == name)?;
        Some(dims.iter().product())
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let operand = |o: &Operand| o.dims.len() * size_of::<usize>();
        let step = |s: &PlanStep| {
            let names: usize = s.fused.iter().map(|f| f.len() + size_of::<String>()).sum();
            let inputs: usize = s
                .inputs
                .iter()
                .map(|o| operand(o) + size_of::<Operand>())
                .sum();
            // Budgets are compared before algorithms are chosen, so names count alike.
            let own = s.name.len() + ALGORITHM_NAME;
            size_of::<PlanStep>() + own + names + inputs + operand(&s.output)
        };
        let tensors = self.inputs.iter().chain(&self.outputs);
        let tensors = tensors.map(|(name, dims)| {
            name.len() + size_of_val(&**dims) + size_of::<(String, Vec<usize>)>()
        });
        let steps: usize = self.steps.iter().map(step).sum();
        steps + tensors.sum::<usize>() + self.network.len()
    }

    pub(crate) fn describe(
        network: &Network,
        program: &Program,
        isa: Isa,
        threads: usize,
        inputs: &[Vec<usize>],
        output_dims: Vec<Vec<usize>>,
    ) -> Plan {
        let tensor = |id: dcz_format::graph::TensorId| {
            network
                .tensors
                .get(id.0 as usize)
                .map_or(String::new(), |t| t.name.clone())
        };
        let input_names = network.inputs.iter().map(|id| tensor(*id));
        let output_names = network.outputs.iter().map(|o| tensor(o.tensor));
        let steps: Vec<PlanStep> = (0..program.steps.len())
            .map(|i| step(network, program, isa, i))
            .collect();
        let peak_step = (0..steps.len())
            .max_by_key(|&i| (steps[i].live_bytes, std::cmp::Reverse(i)))
            .unwrap_or(0);
        Plan {
            network: network.name.clone(),
            isa: isa.name(),
            threads,
            threads_available: threads,
            predicted_ms: steps.iter().map(|s| s.predicted_ms).sum(),
            inputs: input_names.zip(inputs.iter().cloned()).collect(),
            outputs: output_names.zip(output_dims).collect(),
            steps,
            memory: Memory::default(),
            peak_step,
            numeric_id: 0,
        }
    }
}

fn step(network: &Network, program: &Program, isa: Isa, index: usize) -> PlanStep {
    let step = &program.steps[index];
    let node = |i: &usize| {
        network
            .nodes
            .get(*i)
            .map_or(String::new(), |n| n.name.clone())
    };
    let operand = |value: &Value| Operand {
        location: match value.place {
            Place::Input(i) => Location::Input(i),
            Place::Buffer(b) => Location::Arena(program.spans.get(b).copied().unwrap_or_default()),
        },
        dims: value.dims().to_vec(),
        layout: match value.layout {
            Layout::Plain => "nchw",
            Layout::Rows => "rows",
        },
    };
    let (op, algorithm, layer, accumulate) = match &step.work {
        Work::Conv(w) => (
            "conv",
            Some(dcz_kernels::kernel_name(w.algorithm, isa)),
            Some(w.layer),
            w.accumulate,
        ),
        Work::Rows(_) => ("input", None, None, false),
        Work::Linear(w) => ("linear", None, Some(w.layer), w.accumulate),
        Work::Function(_) => ("activation", None, None, false),
        Work::Binary(_) => ("binary", None, None, false),
        Work::BinaryConst { .. } => ("binary_const", None, None, false),
        Work::Pool(_) => ("pool", None, None, false),
        Work::GlobalPool(_) => ("global_pool", None, None, false),
        Work::Fill(_) => ("fill", None, None, false),
        Work::Rearrange(_) => ("rearrange", None, None, false),
        Work::Resize(_) => ("resize", None, None, false),
        Work::Softmax(_) => ("softmax", None, None, false),
        Work::LpNormalize { .. } => ("lp_normalize", None, None, false),
        Work::Export { .. } => ("export", None, None, false),
    };
    let tiles = layer
        .and_then(|l| network.layers.get(l))
        .map_or(&[][..], |l| &l.tiles);
    let mut output = operand(&step.output);
    let mut in_place = accumulate || step.inputs.iter().any(|v| v.place == step.output.place);
    let mut name = step.node.as_ref().map(node).unwrap_or_default();
    if let Work::Export { output: index, .. } = step.work {
        output.location = Location::Output(index);
        output.layout = "nchw";
        in_place = false;
        let tensor = network
            .outputs
            .get(index)
            .and_then(|o| network.tensors.get(o.tensor.0 as usize));
        name = tensor.map_or(String::new(), |t| t.name.clone());
    }
    if let Work::Rows(index) = step.work {
        let tensor = network.inputs.get(index);
        let tensor = tensor.and_then(|id| network.tensors.get(id.0 as usize));
        name = tensor.map_or(String::new(), |t| t.name.clone());
    }
    let resident = step.source.resident.and_then(|r| program.residents.get(r));
    let tier = match resident.map(|r| r.form) {
        None => Tier::Decode,
        Some(ResidentForm::Codes) => Tier::Codes,
        Some(ResidentForm::Float) => Tier::Float,
        Some(ResidentForm::Winograd(_)) => Tier::Winograd,
        Some(ResidentForm::Winograd16(_)) => Tier::Winograd16,
        Some(ResidentForm::Fft(_)) => Tier::Fft,
        Some(ResidentForm::Lists(..) | ResidentForm::LinearLists) => Tier::Lists,
    };
    PlanStep {
        name,
        op,
        algorithm,
        tier: layer.is_some().then_some(tier),
        resident_bytes: resident.map_or(0, |r| r.bytes),
        predicted_ms: step.source.ms,
        fused: step.fused.iter().map(node).collect(),
        inputs: step.inputs.iter().map(operand).collect(),
        output,
        in_place,
        tiles: tiles.len(),
        joined_tiles: joined_tiles(network, program, step),
        coded_bytes: tiles.iter().map(|t| u64::from(t.len)).sum(),
        threads: step.threads,
        by_panels: matches!(&step.work, Work::Conv(w) if w.by_panels),
        band: program.band(index).map(|(band, at)| {
            let mut windows = band.windows.iter();
            let window = windows.find(|w| crate::band::is(&step.output, w.buffer));
            let bank = band.banks.get(at).copied().flatten();
            let bank = bank.and_then(|b| program.spans.get(b));
            PlanBand {
                first: band.steps.start,
                steps: band.steps.len(),
                strip: band.strip,
                strips: band.strips,
                rows: band.rows.get(at).copied().unwrap_or(0),
                window: window.map(|w| w.rows),
                bank_bytes: bank.map_or(0, |span| span.len as u64 * size_of::<f32>() as u64),
            }
        }),
        live_bytes: program
            .live
            .get(index)
            .map_or(0, |&n| n as u64 * size_of::<f32>() as u64),
    }
}

/// Most neighbouring tiles that a step decodes and computes together.
fn joined_tiles(network: &Network, program: &Program, step: &Step) -> usize {
    let (joined, layer) = match &step.work {
        Work::Conv(w) => (planner::joined(w, step, program), w.layer),
        Work::Linear(w) => (false, w.layer),
        _ => return 0,
    };
    network.layers.get(layer).map_or(0, |layer| {
        let runs = weights::runs(layer, joined);
        runs.map(|run| run.len()).max().unwrap_or(0)
    })
}

/// FNV-1a over a textual description, and over the bits of numbers.
struct Hasher(u64);

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Hasher {
    fn bits(&mut self, values: &[f32]) {
        for value in values {
            self.0 = (self.0 ^ u64::from(value.to_bits())).wrapping_mul(PRIME);
        }
    }
}

impl Write for Hasher {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        Ok(())
    }
}

/// What the nodes compute, on which weights, in which order of sums. The batch is left out: it
/// changes no bit.
pub(crate) fn numeric_id(
    network: &Network,
    program: &Program,
    isa: Isa,
    inputs: &[Vec<usize>],
) -> u64 {
    let mut hash = Hasher(0xcbf2_9ce4_8422_2325);
    // Writing to the hasher cannot fail.
    let _ = write!(
        hash,
        "{} {} {:?}",
        isa.name(),
        env!("CARGO_PKG_VERSION"),
        network.nodes
    );
    for dims in inputs {
        let _ = write!(hash, " {:?}", dims.get(1..));
    }
    for constant in &network.constants {
        let _ = write!(hash, " {:08x}", constant.crc);
    }
    for layer in &network.layers {
        // Long lists by their bits: as text they would take longer than all other planning.
        let _ = match &layer.values {
            Values::Codebook { values, zero_code } => {
                hash.bits(values);
                write!(hash, " codebook {zero_code:?}")
            }
            Values::Grid {
                steps: Steps::Channel(steps),
            } => {
                hash.bits(steps);
                write!(hash, " channels")
            }
            Values::Grid {
                steps: Steps::Block { len, steps },
            } => {
                hash.bits(steps);
                write!(hash, " blocks {len}")
            }
            values => write!(hash, " {values:?}"),
        };
        let _ = write!(hash, " {:?}", layer.k_order);
        for tile in &layer.tiles {
            let _ = write!(hash, " {} {} {:08x}", tile.k, tile.k_len, tile.crc);
        }
    }
    for step in &program.steps {
        let _ = match &step.work {
            Work::Conv(w) => {
                let entry = ALGOS.iter().find(|a| a.algo == w.algorithm);
                let sums = entry.map(|a| a.sums);
                write!(hash, " {sums:?} {} {:?}", w.accumulate, step.fused)
            }
            Work::Linear(w) => {
                let resident = step.source.resident.and_then(|r| program.residents.get(r));
                let lists = resident.is_some_and(|r| r.form == ResidentForm::LinearLists);
                let kind = if lists { "lists" } else { "linear" };
                write!(hash, " {kind} {} {:?}", w.accumulate, step.fused)
            }
            _ => Ok(()),
        };
    }
    hash.0
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "network {} on {} with {} thread(s), predicted {:.3} ms on one, numeric id {:016x}",
            self.network, self.isa, self.threads, self.predicted_ms, self.numeric_id
        )?;
        if self.threads < self.threads_available {
            writeln!(
                f,
                "the budget has room for {} of {} threads",
                self.threads, self.threads_available
            )?;
        }
        for (kind, list) in [("input", &self.inputs), ("output", &self.outputs)] {
            for (name, dims) in list {
                writeln!(f, "{kind} {name} {dims:?}")?;
            }
        }
        writeln!(
            f,
            "{:>4} {:<24} {:<12} {:<38} {:<8} {:>10} {:>8} {:<16} {:>10} {:>9} {:>6} {:>3} {:>10}",
            "step",
            "node",
            "op",
            "algorithm",
            "weights",
            "resident",
            "ms",
            "output",
            "offset",
            "bytes",
            "tiles",
            "thr",
            "live"
        )?;
        for (index, step) in self.steps.iter().enumerate() {
            let dims: Vec<String> = step.output.dims.iter().map(usize::to_string).collect();
            let elements: usize = step.output.dims.iter().product();
            let offset = match step.output.location {
                Location::Arena(span) => (span.offset * size_of::<f32>()).to_string(),
                Location::Input(_) | Location::Output(_) => "caller".to_string(),
            };
            // Of a window only what exists at a time.
            let window = step.band.and_then(|b| b.window);
            let height = step.output.dims.get(2).copied().unwrap_or(1).max(1);
            let bytes = elements * size_of::<f32>() / height * window.unwrap_or(height);
            let mut algorithm = step.algorithm.clone().unwrap_or_default();
            if step.in_place {
                algorithm.push_str(" in place");
            }
            write!(
                f,
                "{index:>4} {:<24} {:<12} {:<38} {:<8} {:>10} {:>8.3} {:<16} {offset:>10} {:>9} {:>6} {:>3} {:>10}",
                step.name,
                step.op,
                algorithm.trim(),
                step.tier.map_or("", Tier::name),
                step.resident_bytes,
                step.predicted_ms,
                dims.join("x"),
                bytes,
                step.tiles,
                step.threads,
                step.live_bytes
            )?;
            if !step.fused.is_empty() {
                write!(f, "  + {}", step.fused.join(" + "))?;
            }
            if step.tier == Some(Tier::Decode) && step.joined_tiles > 1 {
                write!(f, "  [{} tiles at a time]", step.joined_tiles)?;
            }
            if index == self.peak_step {
                f.write_str("  <- peak")?;
            }
            if let Some(band) = &step.band {
                if band.first == index {
                    let (steps, strip) = (band.steps, band.strip);
                    write!(f, "  [band of {steps} steps, strips of {strip} rows")?;
                } else {
                    f.write_str("  [band")?;
                }
                if let Some(rows) = band.window {
                    write!(f, "; {rows} rows of the output at a time")?;
                }
                f.write_str("]")?;
            }
            writeln!(f)?;
        }
        let m = &self.memory;
        writeln!(
            f,
            "arena {} B, decode {} B, workspace {} B, resident weights {} B (shared by sessions of the model), constants {} B, tables {} B; total {} B",
            m.arena, m.decode, m.workspace, m.resident, m.constants, m.tables, m.total
        )
    }
}
