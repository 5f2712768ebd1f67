use std::time::Instant;
fn main() {
    let file = std::env::args().nth(1).unwrap();
    let t = Instant::now();
    let model = dcz::Model::open(&file).unwrap();
    println!("open {:.2}", t.elapsed().as_secs_f64() * 1e3);
    let mut all = Vec::new();
    for _ in 0..std::env::args().nth(2).map_or(4, |n| n.parse().unwrap()) {
        let t = Instant::now();
        let mut s = dcz::Session::new(&model, dcz::SessionOptions::default()).unwrap();
        let a = t.elapsed().as_secs_f64() * 1e3;
        s.prepare_default().unwrap();
        println!("new {a:.2} prepare {:.2}", t.elapsed().as_secs_f64() * 1e3);
        all.push(s);
    }
}
