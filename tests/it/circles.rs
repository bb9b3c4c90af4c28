//! Files of a crate import in one direction: no cycle of imports exists, neither direct nor indirect.
//!
//! Each `use` line and each path in the code counts, relative to the
//! crate: `crate::`, `super::`, `self::`, and the names of modules
//! and of imported modules. A name that a file only re-exports
//! (`pub use`) counts as an import from the file that defines it.
//! Tests within a file (`mod tests { .. }`) do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Known cycles: all files of each as modules, in order. A cycle that no longer exists must be removed here.
const EXCEPTIONS: [&[&str]; 2] = [
    &[
        "http",
        "http::access_log",
        "http::body",
        "http::browser",
        "http::details",
        "http::docs",
        "http::exchange",
        "http::guard",
        "http::health",
        "http::index",
        "http::messages",
        "http::metrics",
        "http::openapi",
        "http::quarantine",
        "http::receive",
        "http::route",
        "http::routes",
        "http::stats",
    ],
    &["http::answer", "http::error", "http::views"],
];

/// A module by its path from the crate's root.
type Module = Vec<String>;

/// The files of one crate.
struct Crate {
    files: BTreeMap<Module, File>,
}

struct File {
    /// The code without comments, literals and tests.
    code: String,
    /// The target of each imported name.
    imports: BTreeMap<String, String>,
}

impl Crate {
    fn read(source: &Path) -> Self {
        let mut files = BTreeMap::new();
        for path in rust_files(source) {
            let below = path.strip_prefix(source).expect("below the source").with_extension("");
            let mut module: Module =
                below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                module.pop();
            }
            let code = without_tests(&bare(&fs::read_to_string(&path).unwrap()));
            let paths = uses(&code).into_iter().flat_map(|(line, _)| expand(&line));
            let imports = paths.map(|path| (bound(&path), path)).collect();
            files.insert(module, File { code, imports });
        }
        Self { files }
    }

    /// The module at the start of a path, and the rest of the path. None if the path leads out of the crate.
    fn walk(&self, from: &Module, path: &str, imported: bool) -> Option<(Module, Vec<String>)> {
        let path = path.split(" as ").next().unwrap_or_default();
        let mut names: Vec<String> = path.split("::").map(|name| name.trim().to_owned()).collect();
        let child = |module: &Module, name: &str| {
            let mut child = module.clone();
            child.push(name.to_owned());
            self.files.contains_key(&child).then_some(child)
        };
        let mut module = match names[0].as_str() {
            "crate" => {
                names.remove(0);
                Vec::new()
            }
            "super" | "self" => {
                let mut module = from.clone();
                while names.first().is_some_and(|name| name == "super" || name == "self") {
                    if names.remove(0) == "super" {
                        module.pop();
                    }
                }
                module
            }
            first if child(from, first).is_some() => from.clone(),
            first => {
                let import = self.files[from].imports.get(first).filter(|_| imported)?;
                let (module, rest) = self.walk(from, import, false)?;
                names.remove(0);
                return rest.is_empty().then(|| self.descend(module, names));
            }
        };
        names.retain(|name| name != "self");
        while let Some(next) = names.first().and_then(|name| child(&module, name)) {
            (module, _) = (next, names.remove(0));
        }
        Some((module, names))
    }

    fn descend(&self, mut module: Module, mut names: Vec<String>) -> (Module, Vec<String>) {
        while let Some(name) = names.first() {
            module.push(name.clone());
            if !self.files.contains_key(&module) {
                module.pop();
                break;
            }
            names.remove(0);
        }
        (module, names)
    }

    /// The file that defines a name, if `module` only re-exports it.
    fn owner(&self, module: Module, names: &[String], depth: usize) -> Module {
        let passed_on = names.first().and_then(|name| self.files.get(&module)?.imports.get(name));
        let Some((next, mut rest)) = passed_on.and_then(|path| self.walk(&module, path, false)) else { return module };
        if depth == 0 || rest.is_empty() && names.len() == 1 {
            return module;
        }
        rest.extend_from_slice(&names[1..]);
        self.owner(next, &rest, depth - 1)
    }

    /// The files that a file imports from, each with one of the paths.
    fn imports_of(&self, module: &Module) -> BTreeMap<Module, String> {
        let file = &self.files[module];
        let mut code = file.code.clone();
        for (_, range) in uses(&file.code).into_iter().rev() {
            code.replace_range(range, "");
        }
        let paths = file.imports.values().cloned().chain(inline_paths(&code));
        let mut found = BTreeMap::new();
        for path in paths {
            if let Some((first, names)) = self.walk(module, &path, true)
                && !names.is_empty()
            {
                let owner = self.owner(first, &names, 9);
                if owner != *module && self.files.contains_key(&owner) {
                    found.entry(owner).or_insert(path);
                }
            }
        }
        found
    }

    /// Sets of files that all import from each other, each with a shortest cycle in it, for display.
    fn circles(&self) -> Vec<(Vec<String>, String)> {
        let graph: BTreeMap<&Module, BTreeMap<Module, String>> =
            self.files.keys().map(|module| (module, self.imports_of(module))).collect();
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            graph.keys().map(|module| (*module, reachable(&graph, module))).collect();
        let mut circles: Vec<(Vec<String>, String)> = Vec::new();
        let mut seen: BTreeSet<&Module> = BTreeSet::new();
        for module in graph.keys() {
            if !reached[module].contains(*module) || !seen.insert(*module) {
                continue;
            }
            let together: Vec<&Module> = graph
                .keys()
                .filter(|other| reached[module].contains(**other) && reached[**other].contains(*module))
                .copied()
                .collect();
            seen.extend(&together);
            let names = together.iter().map(|module| named(module)).collect();
            circles.push((names, shortest(&graph, module)));
        }
        circles
    }
}

fn named(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

fn reachable(graph: &BTreeMap<&Module, BTreeMap<Module, String>>, from: &Module) -> BTreeSet<Module> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(module) = next.pop() {
        next.extend(graph[&module].keys().filter(|other| reached.insert((*other).clone())).cloned());
    }
    reached
}

/// A shortest cycle from a file back to itself, one import per line.
fn shortest(graph: &BTreeMap<&Module, BTreeMap<Module, String>>, from: &Module) -> String {
    let mut ways = vec![(from.clone(), String::new())];
    let mut seen = BTreeSet::new();
    loop {
        let mut longer = Vec::new();
        for (module, way) in ways {
            for (other, path) in &graph[&module] {
                let way = format!("{way}\n    {} imports {} ({path})", named(&module), named(other));
                if other == from {
                    return way;
                }
                if seen.insert(other.clone()) {
                    longer.push((other.clone(), way));
                }
            }
        }
        ways = longer;
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("it can be read").path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Code without comments, and with empty literals.
fn bare(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    let find = |what: &str, from: usize| text[from..].find(what).map_or(bytes.len(), |found| from + found);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if rest.starts_with(b"//") {
            at = find("\n", at);
        } else if rest.starts_with(b"/*") {
            at = find("*/", at) + 2;
        } else if rest[0] == b'r' && !is_word(out.last()) && raw_end(&text[at..]).is_some() {
            at += raw_end(&text[at..]).expect("just found");
        } else if rest[0] == b'"' {
            at += 1;
            while bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at += 1;
        } else if rest.starts_with(b"'\\") {
            at = find("'", at + 3) + 1;
        } else if let Some(length) = text.get(at..).and_then(character_length) {
            at += length;
        } else {
            out.push(rest[0]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The length of a character literal at the front; none for a lifetime.
fn character_length(text: &str) -> Option<usize> {
    let character = text.strip_prefix('\'')?.chars().next()?;
    let length = 1 + character.len_utf8();
    text[length..].starts_with('\'').then_some(length + 1)
}

/// The length of a raw string at the front.
fn raw_end(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    while let Some(start) = code.find("#[cfg(test)]\nmod tests {") {
        let (mut depth, mut end) = (0, code.len());
        for (at, byte) in code.bytes().enumerate().skip(start) {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            if byte == b'}' && depth == 0 {
                end = at + 1;
                break;
            }
        }
        code.replace_range(start..end, "");
    }
    code
}

/// The text between `use` and `;`, and the range of the whole line.
fn uses(code: &str) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("use ") {
        let line = code[..start].rsplit('\n').next().unwrap_or_default().trim();
        let end = code[start..].find(';').map(|end| start + end);
        if let Some(end) = end.filter(|_| line.is_empty() || line.starts_with("pub")) {
            found.push((code[start + 4..end].split_whitespace().collect::<Vec<_>>().join(" "), start..end));
        }
    }
    found
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(path: &str) -> Vec<String> {
    let Some((front, group)) = path.trim().split_once('{') else { return vec![path.trim().to_owned()] };
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for letter in group[..group.rfind('}').expect("it is closed")].chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        match letter {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            letter => part.push(letter),
        }
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| expand(part));
    parts.map(|part| format!("{front}{part}")).collect()
}

/// The name that an import binds.
fn bound(path: &str) -> String {
    let path = path.trim_end_matches("::self");
    path.rsplit([' ', ':']).next().unwrap_or_default().to_owned()
}

/// Paths of at least two names that begin in lower case.
fn inline_paths(code: &str) -> Vec<String> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = code.split(|letter: char| !is_part(letter)).map(|word| word.trim_matches(':'));
    let is_path = |word: &&str| word.contains("::") && word.starts_with(|first: char| first.is_lowercase());
    words.filter(is_path).map(str::to_owned).collect()
}

/// The folders with the sources of all crates.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let workspace = root.ancestors().find(|folder| folder.join("crates").is_dir()).unwrap_or(root);
    let crates = fs::read_dir(workspace.join("crates")).into_iter().flatten().flatten();
    let all = crates.map(|entry| entry.path().join("src")).chain([workspace.join("src")]);
    all.filter(|folder| folder.is_dir()).collect()
}

#[test]
fn files_import_in_one_direction() {
    let mut files = 0;
    let mut found: Vec<(Vec<String>, String)> = Vec::new();
    for source in sources() {
        let sources = Crate::read(&source);
        files += sources.files.len();
        found.extend(sources.circles().into_iter().map(|(names, way)| (names, format!("{}:{way}", source.display()))));
    }
    assert!(files > 100, "the test sees the code");
    let is_known = |names: &[String]| EXCEPTIONS.iter().any(|known| names == *known);
    let new: Vec<&str> = found.iter().filter(|(names, _)| !is_known(names)).map(|(_, way)| way.as_str()).collect();
    assert!(new.is_empty(), "files import in a circle; move what both need to a third file:\n{}", new.join("\n"));
    for known in EXCEPTIONS {
        assert!(
            found.iter().any(|(names, _)| names == known),
            "{known:?} is no circle any more: take it out of the list"
        );
    }
}

#[test]
fn a_circle_is_found_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, code: &str| fs::write(folder.path().join(name), code).unwrap();
    fs::create_dir(folder.path().join("part")).unwrap();
    write("lib.rs", "mod part;\nmod other;\npub use part::Thing;\n");
    write("part/mod.rs", "//! use super::other::Not;\nmod inner;\npub use inner::Thing;\n");
    write("part/inner.rs", "use crate::other;\npub struct Thing(other::Other);\n");
    write("other.rs", "const TEXT: &str = \"use crate::part::Thing;\";\npub struct Other;\n");
    assert!(Crate::read(folder.path()).circles().is_empty(), "what is passed on, said and quoted is no import");
    write("other.rs", "pub struct Other;\n#[cfg(test)]\nmod tests {\n    use super::super::part::Thing;\n}\n");
    assert!(Crate::read(folder.path()).circles().is_empty(), "nor is what tests need");
    for import in ["use super::{part::{Thing as It}};\n", "use crate::Thing;\n", "fn f(_: crate::part::Thing) {}\n"] {
        write("other.rs", import);
        let circles = Crate::read(folder.path()).circles();
        let (names, way) = &circles[0];
        assert_eq!(names, &["other", "part::inner"], "{import}");
        assert!(way.contains("other imports part::inner (") && way.contains("part::inner imports other ("), "{way}");
    }
}
