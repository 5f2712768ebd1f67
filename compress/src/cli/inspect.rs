//! `dcz inspect`: what a file holds.

use std::fmt::Write;
use std::path::PathBuf;

use dcz::Model;
use dcz_compress::error::Error;
use dcz_compress::report;
use dcz_format::graph::{
    ChannelOrder, Dim, Filter, Meaning, Metric, Network, Op, Precision, Preprocess, ResizeRule,
};
use dcz_format::pipeline::{InputSize, Pipeline, Pixels};
use serde_json::{Value, json};

/// Prints networks, inputs, outputs, preprocessing, layers, sections and texts of a .dcz file.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file
    file: PathBuf,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
    /// Prints the nodes too
    #[arg(long)]
    nodes: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let model = Model::open(&arguments.file)?;
    let container = model.container();
    let texts = container.texts()?;
    let bytes = container.source().len();
    if arguments.json {
        let sections: Vec<Value> = container.sections().iter().map(|s| json!({ "kind": String::from_utf8_lossy(&s.code), "network": s.network, "offset": s.offset, "bytes": s.len })).collect();
        let line = json!({
            "file": arguments.file.display().to_string(),
            "bytes": bytes,
            "sections": sections,
            "code_tables": container.tables().len(),
            "networks": container.networks().iter().map(|n| network_json(n, arguments.nodes)).collect::<Vec<_>>(),
            "pipeline": container.pipeline().map(|p| pipeline_json(p, container.networks())),
            "texts": texts.iter().map(|t| json!({ "name": t.name, "bytes": t.text.len() })).collect::<Vec<_>>(),
        });
        return super::print(&format!("{line}\n"));
    }
    let mut out = format!(
        "{}: {} bytes, {} code tables\n",
        arguments.file.display(),
        super::grouped(bytes),
        container.tables().len()
    );
    for section in container.sections() {
        let owner = section
            .network
            .map_or(String::new(), |n| format!(" of network {n}"));
        let _ = writeln!(
            out,
            "  section {}{owner}: {} bytes at {}",
            String::from_utf8_lossy(&section.code),
            super::grouped(section.len),
            section.offset
        );
    }
    for network in container.networks() {
        describe(&mut out, network, arguments.nodes);
    }
    if let Some(pipeline) = container.pipeline() {
        describe_pipeline(&mut out, pipeline, container.networks());
    }
    for text in &texts {
        let _ = writeln!(out, "text '{}': {} bytes", text.name, text.text.len());
    }
    super::print(&out)
}

fn describe(out: &mut String, network: &Network, nodes: bool) {
    let _ = writeln!(
        out,
        "network '{}': {} nodes, {} layers, {} constants",
        network.name,
        network.nodes.len(),
        network.layers.len(),
        network.constants.len()
    );
    for (label, text) in [
        ("source", &network.provenance.source),
        ("producer", &network.provenance.producer),
        ("licence", &network.provenance.licence),
    ] {
        if !text.is_empty() {
            let _ = writeln!(out, "  {label}: {text}");
        }
    }
    for id in &network.inputs {
        let _ = writeln!(
            out,
            "  input '{}' {}",
            name(network, id.0),
            dims(network, id.0)
        );
    }
    for symbol in &network.symbols {
        let _ = writeln!(
            out,
            "  symbol '{}': {}..={} in steps of {}, default {}",
            symbol.name, symbol.min, symbol.max, symbol.multiple, symbol.default
        );
    }
    for output in &network.outputs {
        let _ = writeln!(
            out,
            "  output '{}': {}",
            name(network, output.tensor.0),
            meaning(&output.meaning)
        );
    }
    if let Some(p) = &network.preprocess {
        let _ = writeln!(out, "  image: {}", preprocess(p));
    }
    if let Some(test) = &network.self_test {
        let samples: usize = test.expected.iter().map(|e| e.samples.len()).sum();
        let _ = writeln!(
            out,
            "  self-test: {:?} seed {} in {:?}, {samples} samples",
            test.generator, test.seed, test.range
        );
    }
    let halves = network
        .constants
        .iter()
        .filter(|c| c.precision == Precision::F16)
        .count();
    let _ = writeln!(
        out,
        "  constants: {halves} of {} as float16",
        network.constants.len()
    );
    for line in report::table(network).lines() {
        let _ = writeln!(out, "  {line}");
    }
    if nodes {
        for node in &network.nodes {
            let inputs: Vec<&str> = node.inputs.iter().map(|id| name(network, id.0)).collect();
            let _ = writeln!(
                out,
                "  node '{}': {} ({}) -> {}",
                node.name,
                operator(&node.op),
                inputs.join(", "),
                name(network, node.output.0)
            );
        }
    }
}

fn describe_pipeline(out: &mut String, pipeline: &Pipeline, networks: &[Network]) {
    let Pipeline {
        detect,
        align,
        embed,
        compare,
    } = pipeline;
    let network = |index: u32| {
        networks
            .get(index as usize)
            .map_or("?", |n| n.name.as_str())
    };
    let pixels = |p: &Pixels| {
        let order = channel_order(p.channels);
        format!("{order}, (x - {:?}) * {:?}", p.mean, p.scale)
    };
    let _ = writeln!(
        out,
        "pipeline\n  detect '{}': {}, size {}, multiple of {}, strides {:?}, score {}, overlap {}, at most {} faces",
        network(detect.network),
        pixels(&detect.pixels),
        input_size(detect.size),
        detect.multiple,
        detect.strides,
        detect.score,
        detect.nms,
        detect.max_faces
    );
    let [width, height] = align.size;
    let _ = writeln!(
        out,
        "  align: {width}x{height}, landmarks to {:?}, weights {:?}",
        align.template, align.weights
    );
    let _ = writeln!(
        out,
        "  embed '{}': {}",
        network(embed.network),
        pixels(&embed.pixels)
    );
    let threshold = compare
        .threshold
        .map_or("no threshold".into(), |t| format!("threshold {t}"));
    let rate = compare.fpr.map_or(String::new(), |rate| {
        format!(" (false positive rate {rate})")
    });
    let _ = writeln!(
        out,
        "  compare: {}, {threshold}{rate}",
        metric_name(compare.metric)
    );
}

fn input_size(size: InputSize) -> String {
    match size {
        InputSize::Native => "native".into(),
        InputSize::LongestSide(side) => format!("longest side {side}"),
    }
}

fn pipeline_json(pipeline: &Pipeline, networks: &[Network]) -> Value {
    let Pipeline {
        detect,
        align,
        embed,
        compare,
    } = pipeline;
    let network = |index: u32| networks.get(index as usize).map(|n| n.name.clone());
    let pixels = |p: &Pixels| json!({ "channels": channel_order(p.channels), "mean": p.mean, "scale": p.scale });
    json!({
        "detect": {
            "network": network(detect.network), "pixels": pixels(&detect.pixels), "size": input_size(detect.size),
            "multiple": detect.multiple, "strides": detect.strides, "score": detect.score, "nms": detect.nms,
            "max_faces": detect.max_faces,
        },
        "align": { "size": align.size, "template": align.template, "weights": align.weights },
        "embed": { "network": network(embed.network), "pixels": pixels(&embed.pixels) },
        "compare": { "metric": metric_name(compare.metric), "threshold": compare.threshold, "fpr": compare.fpr },
    })
}

fn name(network: &Network, tensor: u32) -> &str {
    network
        .tensors
        .get(tensor as usize)
        .map_or("?", |t| t.name.as_str())
}

fn dims(network: &Network, tensor: u32) -> String {
    let dims = network
        .tensors
        .get(tensor as usize)
        .map_or(&[][..], |t| &t.dims);
    let list: Vec<String> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Symbol(symbol) => network
                .symbols
                .get(symbol.0 as usize)
                .map_or_else(|| "?".into(), |s| s.name.clone()),
        })
        .collect();
    format!("[{}]", list.join(", "))
}

/// Name of an operator, without its attributes.
fn operator(op: &Op) -> String {
    let text = format!("{op:?}");
    text.split(['(', ' ', '{'])
        .next()
        .unwrap_or_default()
        .to_string()
}

fn meaning(meaning: &Meaning) -> String {
    match meaning {
        Meaning::Unknown => "meaning not stated".into(),
        Meaning::Embedding { metric, threshold } => {
            let metric = metric_name(*metric);
            threshold.map_or_else(
                || format!("embedding, {metric}"),
                |t| format!("embedding, {metric}, threshold {t}"),
            )
        }
        Meaning::Classes { labels } => format!("class scores, {} labels", labels.len()),
    }
}

fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine",
        Metric::Euclidean => "euclidean",
    }
}

fn preprocess(p: &Preprocess) -> String {
    format!(
        "{}x{} {}, (x - {:?}) * {:?}, {}, {}",
        p.size[0],
        p.size[1],
        channel_order(p.channels),
        p.mean,
        p.scale,
        resize_rule(p.resize),
        filter(p.filter)
    )
}

fn channel_order(order: ChannelOrder) -> &'static str {
    match order {
        ChannelOrder::Rgb => "rgb",
        ChannelOrder::Bgr => "bgr",
        ChannelOrder::Gray => "gray",
    }
}

fn resize_rule(rule: ResizeRule) -> String {
    match rule {
        ResizeRule::Stretch => "stretch".into(),
        ResizeRule::Letterbox { fill } => format!("letterbox={fill}"),
        ResizeRule::CenterCrop { short } => format!("center-crop={short}"),
    }
}

fn filter(filter: Filter) -> &'static str {
    match filter {
        Filter::Bilinear => "bilinear",
        Filter::Nearest => "nearest",
    }
}

fn network_json(network: &Network, nodes: bool) -> Value {
    let rows = report::rows(network);
    let tensor = |id: u32| {
        let dims = network
            .tensors
            .get(id as usize)
            .map_or(&[][..], |t| &t.dims)
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => json!(size),
                Dim::Symbol(symbol) => json!(
                    network
                        .symbols
                        .get(symbol.0 as usize)
                        .map(|s| s.name.clone())
                ),
            });
        json!({ "name": name(network, id), "dims": dims.collect::<Vec<_>>() })
    };
    let outputs: Vec<Value> = network
        .outputs
        .iter()
        .map(|output| {
            let meaning = match &output.meaning {
                Meaning::Unknown => Value::Null,
                Meaning::Embedding { metric, threshold } => json!({ "kind": "embedding", "metric": metric_name(*metric), "threshold": threshold }),
                Meaning::Classes { labels } => json!({ "kind": "classes", "labels": labels.len() }),
            };
            json!({ "name": name(network, output.tensor.0), "meaning": meaning })
        })
        .collect();
    let mut value = json!({
        "name": network.name,
        "source": network.provenance.source,
        "producer": network.provenance.producer,
        "licence": network.provenance.licence,
        "inputs": network.inputs.iter().map(|id| tensor(id.0)).collect::<Vec<_>>(),
        "outputs": outputs,
        "symbols": network.symbols.iter().map(|s| json!({ "name": s.name, "min": s.min, "max": s.max, "multiple": s.multiple, "default": s.default })).collect::<Vec<_>>(),
        "preprocess": network.preprocess.as_ref().map(|p| json!({
            "size": p.size, "channels": channel_order(p.channels), "mean": p.mean, "scale": p.scale, "resize": resize_rule(p.resize), "filter": filter(p.filter),
        })),
        "float_bytes": report::float_bytes(network),
        "layers": rows.iter().map(report::json).collect::<Vec<_>>(),
        "total": report::json(&report::total("total", &rows)),
    });
    if nodes && let Some(object) = value.as_object_mut() {
        let list: Vec<Value> = network
            .nodes
            .iter()
            .map(|node| json!({ "name": node.name, "operator": operator(&node.op), "inputs": node.inputs.iter().map(|id| name(network, id.0)).collect::<Vec<_>>(), "output": name(network, node.output.0) }))
            .collect();
        object.insert("nodes".into(), json!(list));
    }
    value
}
