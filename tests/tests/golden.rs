//! Golden networks: files made once by `dcz compress` and committed in `fixtures/golden/`. They must open and give
//! bit-equal outputs for good on the portable tier at the smallest budget, and pass their self-test on every tier.
//!
//! `DCZ_RECORD_GOLDEN=1 cargo test -p dcz-tests --test golden` adds what is missing; it never overwrites.

use dcz::{Isa, MemoryBudget, Model, Session, SessionOptions, TensorRef};
use dcz_tests::generated::{self, Edit};
use dcz_tests::{root, run};
use std::fmt::Write;
use std::path::PathBuf;

/// Name, how the weights are drawn, options of `dcz compress`.
const GOLDEN: [(&str, Edit, &[&str]); 4] = [
    ("raw32", generated::dense, &["--quantize", "none"]),
    ("grid", generated::dense, &[]),
    ("codebook", generated::few_values, &[]),
    (
        "minmax_gaps",
        generated::dense,
        &[
            "--prune",
            "percentile=60",
            "--quantize",
            "minmax",
            "--index",
            "gaps",
        ],
    ),
];

#[test]
fn golden_networks_give_the_same_bits() {
    let folder = root().join("tests/fixtures/golden");
    if std::env::var_os("DCZ_RECORD_GOLDEN").is_some() {
        record(&folder);
    }
    for (name, ..) in GOLDEN {
        let model = Model::open(folder.join(format!("{name}.dcz"))).unwrap();
        let bits = output_bits(&model);
        let expected = std::fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
        assert_eq!(bits, expected, "{name}: the output's bits changed");
        let report = Session::new(&model, SessionOptions::default())
            .unwrap()
            .self_test()
            .unwrap();
        assert!(report.passed(), "{name}: {report:?}");
    }
}

/// Output for the self-test's input, one f32 per line in hexadecimal, on the portable tier at the smallest budget.
fn output_bits(model: &Model) -> String {
    let network = model.network(None).unwrap();
    let test = network.self_test.as_ref().unwrap();
    let mut input = vec![0.0; 3 * 16 * 16];
    dcz::session::generate(test, 0, &mut input);
    let options = SessionOptions::default()
        .with_isa(Isa::from_name("portable").unwrap())
        .with_memory_budget(MemoryBudget::Min);
    let mut session = Session::new(model, options).unwrap();
    session.prepare_default().unwrap();
    let mut output = vec![0.0; 24];
    let x = TensorRef {
        data: &input,
        dims: &[1, 3, 16, 16],
    };
    session
        .run(&[("input", x)], &mut [("output", &mut output)])
        .unwrap();
    output.iter().fold(String::new(), |mut text, value| {
        let _ = writeln!(text, "{:08x}", value.to_bits());
        text
    })
}

fn record(folder: &PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    for (name, edit, options) in GOLDEN {
        let file = folder.join(format!("{name}.dcz"));
        if file.exists() {
            continue;
        }
        let model = generated::write(temporary.path(), name, &generated::small(edit));
        let mut arguments = vec![
            "compress",
            model.to_str().unwrap(),
            "-o",
            file.to_str().unwrap(),
        ];
        arguments.extend(options);
        run("dcz", &arguments).expect_code(0);
        std::fs::write(
            folder.join(format!("{name}.txt")),
            output_bits(&Model::open(&file).unwrap()),
        )
        .unwrap();
    }
}
