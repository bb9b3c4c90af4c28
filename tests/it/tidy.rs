//! The structure of the repository: the order of the crates, and the documentation of every setting.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use server::config::settings::SETTINGS;
use server::http::ROUTES;
use server::http::route::Handler;

/// The crates of the product; each uses only crates to its left. Cargo refuses cycles, this test new edges.
const CRATES: [&str; 8] = ["domain", "providers", "runtime", "index", "store", "server", "bench", "postroom"];
/// The parts of the server; each uses only parts to its left.
const PARTS: [&str; 4] = ["config", "telemetry", "http", "app"];
/// A longer file probably has two responsibilities.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("it can be read").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Our crates that a crate uses, outside of its tests.
fn used_by(name: &str) -> Vec<String> {
    let manifest = read(&format!("crates/{name}/Cargo.toml"));
    let (_, dependencies) = manifest.split_once("[dependencies]").expect("it has dependencies");
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let names = dependencies.lines().filter_map(|line| line.strip_suffix(".workspace = true"));
    names.filter(|name| CRATES.contains(name) || *name == "testkit").map(str::to_owned).collect()
}

#[test]
fn crates_use_only_what_is_to_their_left() {
    for (place, name) in CRATES.iter().enumerate() {
        for used in used_by(name) {
            assert!(CRATES[..place].contains(&used.as_str()), "{name} uses {used}, which is not to its left");
        }
    }
    assert_eq!(used_by("store"), ["domain", "index", "runtime"], "it uses no provider and no server");
    assert_eq!(used_by("index"), ["domain"]);
    assert_eq!(used_by("providers"), ["domain"]);
}

#[test]
fn parts_of_the_server_use_only_what_is_to_their_left() {
    let source = root().join("crates/server/src");
    let mut uses = 0;
    for path in rust_files(&source) {
        let below = path.strip_prefix(&source).unwrap();
        let first = below.components().next().unwrap().as_os_str().to_str().unwrap();
        let Some(own) = PARTS.iter().position(|part| *part == first.trim_end_matches(".rs")) else { continue };
        for used in fs::read_to_string(&path).unwrap().split("crate::").skip(1) {
            let name = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if let Some(other) = PARTS.iter().position(|part| *part == name) {
                uses += 1;
                assert!(other <= own, "{} uses {name}, which is to its right", path.display());
            }
        }
    }
    assert!(uses > 10, "the test sees the code");
}

#[test]
fn domain_and_providers_do_no_input_or_output() {
    for module in ["domain", "providers"] {
        for path in rust_files(&root().join(format!("crates/{module}/src"))) {
            let text = fs::read_to_string(&path).unwrap();
            for forbidden in ["std::fs", "std::net", "std::env", "tokio", "async fn", "rusqlite"] {
                assert!(!text.contains(forbidden), "{} uses {forbidden}", path.display());
            }
        }
    }
}

/// A `StoredPayload` implies a signature that was verified on arrival, so few places may create one.
#[test]
fn only_the_store_and_the_fuzz_bodies_make_a_stored_payload() {
    let makes = |path: &Path| fs::read_to_string(path).unwrap().contains("read_from_store");
    let folders = ["crates", "tests", "fuzz/fuzz_targets"];
    let makers: Vec<PathBuf> = folders.iter().flat_map(|folder| rust_files(&root().join(folder))).collect();
    let makers = makers.iter().filter(|path| !path.ends_with("tests/it/tidy.rs") && makes(path));
    let mut makers: Vec<_> = makers.map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap()).collect();
    makers.retain(|path| !path.starts_with("crates/store/"));
    makers.sort_unstable();
    assert_eq!(makers, ["crates/domain/src/payload.rs", "crates/providers/src/fuzz.rs"]);
}

#[test]
fn sql_stays_in_the_store_and_files_stay_short() {
    for path in rust_files(&root().join("crates")) {
        let text = fs::read_to_string(&path).unwrap();
        let inside_store = path.strip_prefix(root().join("crates/store")).is_ok();
        assert!(inside_store || !text.contains("SELECT "), "{} holds SQL", path.display());
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_example_file_and_the_readme_name_every_setting() {
    let (example, readme) = (read("postroom.example.toml"), read("README.md"));
    let mut section = "";
    let mut known = Vec::new();
    for line in example.lines() {
        let line = line.trim_start_matches("# ").trim_start_matches('#');
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once(" = ") {
            known.push((section, key, value.trim_matches('"')));
        }
    }
    for setting in SETTINGS {
        let (section, key) = setting.file_key;
        let found = known.iter().find(|(known_section, known_key, _)| (*known_section, *known_key) == (section, key));
        let (_, _, value) = found.unwrap_or_else(|| panic!("postroom.example.toml lacks {section}.{key}"));
        assert!(
            setting.secret || setting.default.is_empty() || *value == setting.default,
            "{section}.{key} is {value}"
        );
        assert!(readme.contains(setting.name), "README.md lacks {}", setting.name);
    }
}

#[test]
fn every_route_is_in_the_documents() {
    let api = read("API.md");
    let document: Value = serde_json::from_str(&read("docs/openapi.json")).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("the document has paths");
    let mut described = 0;
    for route in ROUTES {
        let (path, method) = (route.path.text, route.method.as_str());
        if let Handler::Files(_) = route.handler {
            let folder = path.split('{').next().unwrap();
            assert!(api.contains(&format!("`{folder}`")), "API.md does not name the files below {folder}");
            continue;
        }
        let row = format!("| `{path}` | {method} | ");
        assert!(api.lines().any(|line| line.starts_with(&row)), "API.md has no row {row}");
        let operation = &document["paths"][path][method.to_ascii_lowercase()];
        assert!(operation["responses"].is_object(), "docs/openapi.json does not describe {method} {path}");
        described += 1;
    }
    let operations: usize = paths.values().map(|item| item.as_object().expect("an item").len()).sum();
    assert_eq!(operations, described, "docs/openapi.json describes what is no route");
}

#[test]
fn every_provider_has_a_page_and_samples() {
    let overview = read("docs/providers/README.md");
    for scheme in providers::SCHEMES.iter().filter(|scheme| scheme.kind != "postroom") {
        assert!(root().join(format!("docs/providers/{}.md", scheme.kind)).exists(), "{}", scheme.kind);
        assert!(overview.contains(&format!("({}.md)", scheme.kind)), "{}", scheme.kind);
        if let Some(variable) = scheme.variable {
            assert!(overview.contains(variable), "{variable}");
        }
        assert!(root().join("testdata/providers").join(scheme.kind).is_dir(), "{}", scheme.kind);
    }
}

#[test]
fn the_example_file_is_one_that_the_program_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postroom.toml");
    let uncommented: String = read("postroom.example.toml")
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|line| line.starts_with('[') || line.contains(" = ")).unwrap_or(line)
        })
        // The operator owns the secret files.
        .filter(|line| !line.contains("_file"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&path, uncommented).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_postroom"))
        .args(["check", "--config"])
        .arg(&path)
        .env_clear()
        .env("WEBHOOK_SECRET", "s")
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_promised_files_are_there() {
    for path in [
        "README.md",
        "API.md",
        "DEPLOYMENT.md",
        "TESTING.md",
        "BENCHMARKS.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        "PROJECT_SUMMARY.md",
        "docs/ARCHITECTURE.md",
        "docs/openapi.json",
        ".env.example",
        "postroom.example.toml",
        "Dockerfile",
        "docker-compose.yml",
        "Makefile",
        "quickstart.sh",
        "test_api.sh",
        "crates/store/src/DESIGN.md",
    ] {
        assert!(root().join(path).exists(), "{path}");
    }
    let targets = read("Makefile");
    for target in ["run", "up", "down", "logs", "test", "check", "fmt", "bench", "bench-micro", "clean", "help"] {
        assert!(targets.contains(&format!("\n{target}: ")), "make {target}");
    }
    assert!(read("docs/ARCHITECTURE.md").lines().count() <= 150);
}

/// The names in backticks that end in `.rs`, in every document but the history of changes.
#[test]
fn documents_name_only_source_files_that_exist() {
    let mut sources = rust_files(&root().join("crates"));
    sources.extend(rust_files(&root().join("tests")));
    let exists = |name: &str| sources.iter().any(|path| path.ends_with(name.rsplit('/').next().unwrap_or(name)));
    let mut documents: Vec<PathBuf> = Vec::new();
    for folder in ["", "docs", "docs/adr", "docs/providers", "crates/store/src", "crates/store/src/postgres"] {
        let entries = fs::read_dir(root().join(folder)).expect(folder);
        documents.extend(entries.map(|entry| entry.expect("it can be read").path()));
    }
    documents.retain(|path| path.extension().is_some_and(|end| end == "md") && !path.ends_with("CHANGELOG.md"));
    let mut named = 0;
    for document in documents {
        for name in fs::read_to_string(&document).unwrap().split('`').skip(1).step_by(2) {
            let is_name = name.ends_with(".rs") && name.chars().all(|c| c.is_ascii_alphanumeric() || "_./".contains(c));
            if is_name {
                named += 1;
                assert!(exists(name), "{} names {name}, which does not exist", document.display());
            }
        }
    }
    assert!(named > 50, "the test sees the documents");
}
