//! Whatever a file holds, the check answers and never panics.

use super::{check, project};
use crate::starter;

/// SplitMix64, so that a seed replays a failure.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }
}

const PIECES: [&str; 24] = [
    "{", "}", "[", "]", ":", "- ", "\n", "\t", "\"", "'", "&a ", "*a", "<<: ", "!!map ", "| ", "? ", "é",
    "\u{0}", "\u{FEFF}", "${", "--! ", "/*", "🦀", "---\n",
];

fn mutate(text: &str, random: &mut Random) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            3 => {
                let end = (at + random.below(40)).min(bytes.len());
                let cut: Vec<u8> = bytes.drain(at..end).collect();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, cut);
            }
            _ => {
                let end = (at + random.below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

#[test]
fn no_mutation_of_a_valid_file_panics() {
    let seed: u64 = std::env::var("LEVADA_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_121);
    let rounds: u64 = std::env::var("LEVADA_TEST_ROUNDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1_500);
    let mut files: Vec<(String, String)> =
        starter("demo").into_iter().map(|(path, text)| (path.to_string_lossy().into_owned(), text)).collect();
    files.push((
        "connectors/example_source.yaml".into(),
        include_str!("../../testdata/dialect/example_source.yaml").into(),
    ));
    files.push((
        "schemas/example_source.json".into(),
        include_str!("../../testdata/dialect/example_source.json").into(),
    ));
    files.push(("schemas/order.json".into(), include_str!("../../testdata/dialect/json_schema.json").into()));
    files.retain(|(path, _)| !path.ends_with(".md") && !path.starts_with('.'));
    let dir = project(files.clone());
    let mut random = Random(seed);
    let mut sound = 0;
    for round in 0..rounds {
        let (path, text) = &files[random.below(files.len())];
        let bytes = mutate(text, &mut random);
        std::fs::write(dir.path().join(path), &bytes).expect("write");
        let outcome = std::panic::catch_unwind(|| {
            let loaded = check(dir.path());
            for diagnostic in &loaded.diagnostics {
                diagnostic.render(crate::Style::Colour);
                assert!(!diagnostic.message.is_empty());
            }
            loaded.project.is_some()
        });
        let shown = String::from_utf8_lossy(&bytes);
        sound +=
            usize::from(outcome.unwrap_or_else(|_| panic!("seed {seed}, round {round}, {path}:\n{shown}")));
        std::fs::write(dir.path().join(path), text).expect("write back");
    }
    println!("seed {seed}: {sound} of {rounds} mutations left a sound project");
    assert!(sound > 0 && (sound as u64) < rounds, "mutations both break and keep files");
}
