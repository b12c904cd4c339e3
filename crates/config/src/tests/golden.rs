//! Folders under `testdata/cases` with the findings they give, rendered, in `expected.txt`.
//! `UPDATE_GOLDEN=1` writes them anew; look at the difference before you keep it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{CODES, Secrets, Style, load_with, render_all};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Compares with a golden file, or writes it.
fn compare(path: &Path, found: &str) {
    if updating() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("make folders");
        fs::write(path, found).expect("write the golden file");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "{} differs; UPDATE_GOLDEN=1 writes it anew", path.display());
}

/// One case: a folder of a project, checked and rendered. Gives the codes that it shows.
fn check(case: &Path) -> Vec<&'static str> {
    let root = case.join("project");
    let variables = [("LEVADA_SECRET_WEATHER_TOKEN".to_owned(), "never-shown".to_owned())];
    let secrets = Secrets::load_with(&root, variables).expect("secrets");
    let loaded =
        load_with(&root, &secrets, &|name| (name == "HOST").then(|| "never-shown.example".to_owned()));
    let mut shown = render_all(&loaded.diagnostics, Style::Plain);
    assert!(!shown.contains("never-shown"), "{shown}");
    let errors = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
    assert_eq!(loaded.project.is_some(), errors == 0, "{shown}");
    shown.push_str(&format!("{errors} errors, {} warnings\n", loaded.diagnostics.len() - errors));
    compare(&case.join("expected.txt"), &shown.replace(&root.display().to_string(), "<root>"));
    let json = serde_json::to_string(&loaded.diagnostics).expect("JSON");
    assert!(!json.contains("never-shown"));
    loaded.diagnostics.iter().map(|d| d.code).collect()
}

#[test]
fn every_case_gives_its_findings_and_every_code_has_a_case() {
    let mut seen = BTreeSet::new();
    let mut cases: Vec<PathBuf> =
        fs::read_dir(testdata().join("cases")).expect("cases").map(|e| e.expect("an entry").path()).collect();
    cases.sort();
    for case in cases {
        println!("case {}", case.display());
        seen.extend(check(&case));
    }
    // What the query engine finds comes from outside this crate: see the tests of `places`.
    seen.extend(["E0125", "E0135", "W0108"]);
    // These need a mode, a broken encoding or a number of files that no checkout keeps; they have own tests.
    seen.extend(["E0001", "E0140", "E0141", "W0002"]);
    let missing: Vec<&str> = CODES.iter().map(|c| c.id).filter(|id| !seen.contains(id)).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}

#[test]
fn every_code_is_documented() {
    let mut page = String::from(
        "# Findings of the project check\n\n\
         `levada check` reports every finding of a folder in one run. `E` stops the project from \
         running, `W` does not. A code never changes its meaning.\n\n\
         | code | what it is | how to mend it |\n|---|---|---|\n",
    );
    for code in CODES {
        let mend = code.mend.replace('|', "\\|");
        page.push_str(&format!("| {} | {} | {mend} |\n", code.id, code.title));
    }
    compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors/config.md"), &page);
}

#[test]
fn a_file_that_is_no_text_and_a_flood_of_findings_are_bounded() {
    let dir = super::project([("levada.yaml", "name: x\n")]);
    fs::create_dir_all(dir.path().join("pipelines")).expect("make a folder");
    fs::write(dir.path().join("pipelines/a.yaml"), [0xFF, 0xFE, 0x00]).expect("write");
    let flood: String = (0..3_000).map(|i| format!("field_{i}: 1\n")).collect();
    fs::write(dir.path().join("pipelines/b.yaml"), format!("pipeline: b\n{flood}")).expect("write");
    let found = super::check(dir.path()).diagnostics;
    assert_eq!((found[0].code, found[0].line), ("E0001", 1));
    assert_eq!(found.len(), 1_001);
    assert_eq!(found[1_000].code, "W0002");
}
