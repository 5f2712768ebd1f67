//! Pruning in blocks of output channels, from the command line to the kernels that are chosen for the file.

use dcz::{MemoryBudget, Model, Session, SessionOptions};
use dcz_compress::prune::Blocks;
use dcz_format::graph::LayerId;
use dcz_tests::{generated, run};
use std::path::Path;

fn compress(folder: &Path, name: &str, more: &[&str]) -> Model {
    let model = generated::write(folder, "wide.onnx", &generated::wide(generated::dense));
    let out = folder.join(name);
    let (model, path) = (model.to_str().unwrap(), out.to_str().unwrap());
    let mut arguments = vec!["compress", model, "-o", path];
    arguments.extend(more);
    run("dcz", &arguments).expect_code(0);
    run("dcz", &["check", path]).expect_code(0);
    Model::open(&out).unwrap()
}

/// Kernel of the layer of 64 channels with a stride (without one Winograd's algorithm competes), with all the memory it wants.
fn kernel(model: &Model) -> String {
    let options = SessionOptions::default()
        .with_memory_budget(MemoryBudget::Max)
        // Not the machine's, so that the choice does not depend on it.
        .with_isa(dcz::Isa::Portable);
    let mut session = Session::new(model, options).unwrap();
    let plan = session.prepare_default().unwrap();
    let step = plan.steps.iter().find(|s| s.name == "second").unwrap();
    step.algorithm.clone().unwrap()
}

#[test]
fn zeros_are_in_blocks_and_the_planner_uses_them() {
    let folder = tempfile::tempdir().unwrap();
    let alone = compress(folder.path(), "1.dcz", &["--prune", "percentile=75"]);
    assert!(alone.container().blocks(0).is_empty());
    assert!(!kernel(&alone).contains("blocksparse"));
    for block in [2u8, 4, 8] {
        let text = block.to_string();
        let more = ["--prune", "percentile=75", "--prune-block", &text];
        let model = compress(folder.path(), &format!("{block}.dcz"), &more);
        let network = &model.networks()[0];
        let known = model.container().blocks(0);
        assert_eq!(known.len(), network.layers.len());
        for (i, layer) in network.layers.iter().enumerate() {
            let weights = model
                .container()
                .dense_weights(0, LayerId(i as u32))
                .unwrap();
            let blocks = Blocks::new(&layer.shape, block);
            let share = blocks.zeros(&weights) as f64 / blocks.len() as f64;
            assert!((0.75..0.77).contains(&share), "{}: {share}", layer.name);
            let [of2, of4] = known[i].shares();
            assert!(
                of2 < 0.27 && (block == 2 || of4 < 0.27),
                "{}: {of2} {of4}",
                layer.name
            );
        }
        // In groups of 2 or 4: on larger blocks either is right, they take about the same time.
        let found = kernel(&model);
        assert!(found.contains("blocksparse_f32_"), "{block}: {found}");
    }
}

#[test]
fn blocks_need_something_to_prune() {
    let folder = tempfile::tempdir().unwrap();
    let model = generated::write(folder.path(), "m.onnx", &generated::small(generated::dense));
    let out = folder.path().join("o.dcz");
    let base = [
        "compress",
        model.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
    ];
    for (more, why) in [
        (vec!["--prune-block", "4"], "--prune"),
        (
            vec!["--prune-block", "3", "--prune", "percentile=50"],
            "1, 2, 4 or 8",
        ),
    ] {
        let ran = run("dcz", &[&base[..], &more].concat()).expect_code(2);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
        assert!(!out.exists());
    }
}
