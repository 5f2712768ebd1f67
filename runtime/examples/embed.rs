//! The embedding of one image that is already in the network's input form: three lines of library.
//!
//! `cargo run --release -p dcz --example embed -- face.dcz`

use dcz::{Model, Session, SessionOptions, TensorRef};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: embed MODEL.dcz")?;
    let mut session = Session::new(&Model::open(path)?, SessionOptions::default())?;
    let plan = session.prepare_default()?.clone();
    let [(input, dims), ..] = plan.inputs.as_slice() else {
        return Err("no input".into());
    };
    let [(output, shape), ..] = plan.outputs.as_slice() else {
        return Err("no output".into());
    };
    let pixels = vec![0.5; dims.iter().product()];
    let mut embedding = vec![0.0; shape.iter().product()];
    let image = TensorRef {
        dims,
        data: &pixels,
    };
    session.run(&[(input, image)], &mut [(output, &mut embedding)])?;
    println!("{embedding:?}");
    Ok(())
}
