//! The shipped files for Compose and Kubernetes match the program:
//! they parse, the program accepts their settings, and ports, paths,
//! names and secrets are consistent. Nothing is run here, because
//! Docker may not be available: `tests/containers.sh` does that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use providers::SCHEMES;
use serde_json::Value;
use server::config::sources::VERIFY_TOKEN_VARIABLE;
use server::config::{Config, Inputs, settings};
use server::http::ROUTES;
use store::Database;

const FOLDERS: [&str; 2] = ["deploy/kubernetes", "deploy/kubernetes-postgres"];

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: impl AsRef<Path>) -> Value {
    let value = serde_yaml_ng::from_str(&read(&path)).and_then(|mut value: serde_yaml_ng::Value| {
        value.apply_merge()?;
        serde_yaml_ng::from_value(value)
    });
    value.unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The program's configuration for an environment. The program must know every name in it.
fn config(environment: &BTreeMap<String, String>) -> Config {
    for name in environment.keys() {
        let known = settings::find(name).or_else(|| settings::find(name.strip_suffix("_FILE")?));
        assert!(known.is_some(), "{name} is no setting");
    }
    let values = environment.iter().map(|(name, value)| (name.clone(), value.into())).collect();
    let inputs = Inputs::new(BTreeMap::new(), values, None).expect("the environment can be read");
    Config::load(&inputs).unwrap_or_else(|error| panic!("{environment:?}: {error}"))
}

/// Whether a GET of that path is routed.
fn is_answered(path: &str) -> bool {
    ROUTES.iter().any(|route| route.path.text == path && route.method == "GET")
}

/// The maximum time of a stop: the drain time for balancers, the requests in progress, and a last batch.
fn stop_seconds(config: &Config) -> u64 {
    let write = match &config.store.database {
        Database::Postgres(postgres) => postgres.write_timeout,
        Database::Sqlite { .. } => Duration::ZERO,
    };
    (config.server.drain + config.server.grace + write).as_secs()
}

/// The objects of a folder that are applied together, by kind.
fn objects(folder: &str) -> BTreeMap<String, Value> {
    let kustomization = yaml(format!("{folder}/kustomization.yaml"));
    let named: BTreeSet<&str> = list(&kustomization["resources"]).iter().map(text).collect();
    let there: Vec<String> = fs::read_dir(root().join(folder))
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    for name in &there {
        // Every file parses; examples are not applied, nor objects that require their own operator.
        yaml(format!("{folder}/{name}"));
        let is_optional =
            name.contains(".example.") || ["kustomization.yaml", "servicemonitor.yaml"].contains(&&**name);
        assert_eq!(named.contains(name.as_str()), !is_optional, "{folder}/{name}");
    }
    let objects = named.iter().map(|name| yaml(format!("{folder}/{name}")));
    objects.map(|object| (text(&object["kind"]).to_owned(), object)).collect()
}

/// The keys of the secrets in the documented commands, by secret.
fn secrets() -> BTreeMap<String, BTreeSet<String>> {
    let examples = FOLDERS.map(|folder| yaml(format!("{folder}/secret.example.yaml")));
    let keys = |example: &Value| -> BTreeSet<String> {
        match example["stringData"].as_object() {
            Some(fields) => fields.keys().cloned().collect(),
            None => list(&example["spec"]["data"]).iter().map(|one| text(&one["secretKey"]).to_owned()).collect(),
        }
    };
    examples.iter().map(|example| (text(&example["metadata"]["name"]).to_owned(), keys(example))).collect()
}

#[test]
fn manifests_of_kubernetes_agree_with_the_program_and_with_each_other() {
    let secrets = secrets();
    for folder in FOLDERS {
        let objects = objects(folder);
        let workload = objects.get("Deployment").or(objects.get("StatefulSet")).expect("something runs");
        let (labels, pod) =
            (&workload["spec"]["template"]["metadata"]["labels"], &workload["spec"]["template"]["spec"]);
        let container = &pod["containers"][0];

        // Settings: each secret is a file under a mount, and a key of the secret mounted there.
        let run = tempfile::tempdir().expect("a folder");
        let mut environment = BTreeMap::new();
        for variable in list(&container["env"]) {
            let (name, mut value) = (text(&variable["name"]), text(&variable["value"]).to_owned());
            if name.ends_with("_FILE") {
                let (place, key) = value.rsplit_once('/').expect("a path");
                let mounts = list(&container["volumeMounts"]);
                let mount = mounts.iter().find(|mount| mount["mountPath"] == place).expect("it is mounted");
                let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]);
                let secret = text(&volume.expect("a volume of that name")["secret"]["secretName"]);
                assert!(secrets[secret].contains(key), "{folder}: {secret} has no {key}");
                let is_url = name == "DATABASE_URL_FILE";
                let file = run.path().join(key);
                fs::write(&file, if is_url { "postgres://postroom:p@db/postroom" } else { "secret" }).expect("written");
                value = file.display().to_string();
            }
            environment.insert(name.to_owned(), value);
        }
        let config = config(&environment);
        assert_eq!(matches!(config.store.database, Database::Postgres(_)), folder.ends_with("postgres"));
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(stop_seconds(&config)), "{folder}");

        // Endpoints are removed from the nodes' tables within seconds; a hook would only wait, and the image has no
        // shell for it.
        assert!(config.server.drain >= Duration::from_secs(5) && container["lifecycle"].is_null(), "{folder}");

        // Ports and paths.
        let port = &container["ports"][0];
        assert_eq!(port["containerPort"], config.server.port);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &container[probe]["httpGet"];
            assert!(is_answered(text(&get["path"])) && get["port"] == port["name"], "{folder}: {probe} {get}");
        }
        let service = &objects["Service"];
        assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
        let policy = &objects["NetworkPolicy"]["spec"];
        assert_eq!(policy["ingress"][0]["ports"][0]["port"], config.server.port);
        if let Database::Postgres(_) = config.store.database {
            assert!(list(&policy["egress"]).iter().any(|rule| rule["ports"][0]["port"] == 5432), "{folder}");
        }

        // All selectors of pods match these labels.
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels);
        assert_eq!((&service["spec"]["selector"], &policy["podSelector"]["matchLabels"]), (labels, labels));
        if let Some(budget) = objects.get("PodDisruptionBudget") {
            assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
        }
        if let Some(scaler) = objects.get("HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            assert_eq!((&target["kind"], &target["name"]), (&workload["kind"], &workload["metadata"]["name"]));
            assert_eq!(scaler["spec"]["minReplicas"], workload["spec"]["replicas"]);
        }
        let kustomization = yaml(format!("{folder}/kustomization.yaml"));
        assert_eq!(kustomization["images"][0]["name"], container["image"]);
        assert_eq!(kustomization["images"][0]["newTag"], env!("CARGO_PKG_VERSION"));
    }
    let monitor = yaml("deploy/kubernetes/servicemonitor.yaml");
    assert!(is_answered(text(&monitor["spec"]["endpoints"][0]["path"])));
}

/// The files that a source file includes at compile time, or the folder if the name is built by `concat!`.
fn included(source: &Path) -> Vec<PathBuf> {
    let code = read(source);
    let mut all = Vec::new();
    for (place, called) in ["include_str!(", "include_bytes!(", "include!(", "include_dir!("]
        .iter()
        .flat_map(|call| code.match_indices(call))
    {
        let literal = code[place + called.len()..].split('"').nth(1).expect("a path");
        let mut path = PathBuf::new();
        for part in source.parent().expect("a folder").join(literal).components() {
            if part.as_os_str() != ".." {
                path.push(part);
            } else {
                assert!(path.pop(), "{}: {literal}", source.display());
            }
        }
        assert!(root().join(&path).exists(), "{}: there is no {}", source.display(), path.display());
        all.push(path);
    }
    all
}

/// The files of a folder and of the folders in it, relative to the root.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from(folder)];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        if root().join(&path).is_dir() {
            let entries = fs::read_dir(root().join(&path)).expect("it can be read");
            found.extend(entries.map(|entry| path.join(entry.expect("it can be read").file_name())));
        }
        next += 1;
    }
    found.retain(|path| root().join(path).is_file());
    found
}

/// The target of a file under such a `COPY`, if it is copied: `COPY source… target`, all relative.
fn copied_to(copy: &[&str], file: &Path) -> Option<PathBuf> {
    let (target, sources) = copy.split_last().expect("a target");
    let source = Path::new(sources.iter().find(|source| file.starts_with(source))?);
    let rest = file.strip_prefix(source).expect("it begins so");
    let is_named = rest.as_os_str().is_empty() && target.ends_with('/');
    let within = if is_named { Path::new(file.file_name()?) } else { rest };
    Some(Path::new(target).join(within).components().filter(|part| part.as_os_str() != ".").collect())
}

/// Whether Docker sends a file to the builder: the last line of `.dockerignore` that names it, or a folder of it,
/// decides.
fn is_sent(ignored: &str, file: &Path) -> bool {
    let lines = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.fold(true, |sent, line| match line.strip_prefix('!') {
        Some(kept) => sent || file.starts_with(kept),
        None => {
            assert!(line == "*" || !line.contains(['*', '?', '[']), "this test knows no such pattern: {line}");
            sent && line != "*" && !file.starts_with(line)
        }
    })
}

#[test]
fn the_image_is_built_from_all_that_the_program_is_compiled_from() {
    let (dockerfile, ignored) = (read("Dockerfile").replace("\\\n", " "), read(".dockerignore"));
    let builds: Vec<usize> = dockerfile.match_indices("cargo build").map(|(place, _)| place).collect();
    let before_the_last = &dockerfile[..*builds.last().expect("something is built")];
    let copies: Vec<Vec<&str>> = before_the_last
        .lines()
        .filter_map(|line| Some(line.strip_prefix("COPY ")?.split_whitespace().collect()))
        .collect();
    let sources: Vec<PathBuf> =
        files("crates").into_iter().filter(|path| !path.starts_with("crates/bench/benches")).collect();
    let mut needed: BTreeSet<PathBuf> = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"].map(PathBuf::from).into();
    for source in sources.iter().filter(|source| source.extension().is_some_and(|extension| extension == "rs")) {
        needed.extend(included(source));
    }
    assert!(needed.contains(Path::new("testdata/providers")), "{needed:?}");
    needed.extend(sources);
    let missing: Vec<&PathBuf> =
        needed.iter().filter(|file| !copies.iter().any(|copy| copied_to(copy, file).as_ref() == Some(file))).collect();
    assert!(missing.is_empty(), "the Dockerfile does not copy {missing:?}");
    let unsent: Vec<&PathBuf> = needed.iter().filter(|file| !is_sent(&ignored, file)).collect();
    assert!(unsent.is_empty(), ".dockerignore keeps away {unsent:?}");
}

/// The number in the line of a Caddyfile that begins with this word; the caller knows its unit.
fn number_after(caddyfile: &str, word: &str) -> u64 {
    let mut lines = caddyfile.lines().map(str::trim);
    let value =
        lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no {word}"));
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|error| panic!("{word} {value}: {error}"))
}

/// The Compose value of `${NAME:-default}` and `${NAME:?why}` with only required variables set, and the name.
fn interpolated(value: &str) -> (String, Option<&str>) {
    let Some((before, rest)) = value.split_once("${") else { return (value.to_owned(), None) };
    let (inner, after) = rest.split_once('}').expect("it ends");
    let name = inner.split(':').next().expect("a name");
    let default = inner.split_once(":-").map(|(_, default)| default).filter(|default| !default.is_empty());
    (format!("{before}{}{after}", default.unwrap_or("given")), Some(name))
}

#[test]
fn the_compose_file_agrees_with_the_program_and_its_parts_with_each_other() {
    let compose = yaml("docker-compose.yml");
    let (services, example) = (&compose["services"], read(".env.example"));
    let offers: BTreeSet<&str> =
        example.lines().filter_map(|line| Some(line.trim_start_matches('#').split_once('=')?.0)).collect();
    let offered = |name: &str| offers.contains(name.trim_end_matches("_PREVIOUS"));
    let of_a_source = |name: &str| {
        SCHEMES.iter().any(|scheme| scheme.variable == Some(name.trim_end_matches("_PREVIOUS")))
            || name == VERIFY_TOKEN_VARIABLE
    };
    for name in ["api", "replica"] {
        let service = &services[name];
        let (mut environment, mut passed_on) = (BTreeMap::new(), BTreeSet::new());
        for (variable, value) in service["environment"].as_object().expect("a map") {
            // A variable without a value is passed on if it is set.
            let (value, from) = interpolated(value.as_str().unwrap_or("${}"));
            assert!(from.is_none_or(|from| offered(if from.is_empty() { variable } else { from })), "{variable}");
            if from != Some("") {
                environment.insert(variable.clone(), value);
            } else {
                passed_on.insert(variable.as_str());
                assert!(settings::find(variable).is_some() || of_a_source(variable), "{variable} is no setting");
            }
        }
        // All settings of the example, and all variables that open a source,
        // are passed on, except those that a container fixes, and foreign ones.
        let not_ours = ["DATABASE_PASSWORD", "BALANCER_PORT"];
        let sources = SCHEMES.iter().filter_map(|scheme| scheme.variable);
        for variable in offers.iter().copied().filter(|name| !not_ours.contains(name)).chain(sources) {
            assert!(!service["environment"][variable].is_null() || passed_on.contains(variable), "{variable}");
        }
        let config = config(&environment);
        assert_eq!(matches!(config.store.database, Database::Postgres(_)), name == "replica");
        let grace = text(&service["stop_grace_period"]).trim_end_matches('s').parse::<u64>().expect("seconds");
        assert!(grace > stop_seconds(&config), "{name}");
        assert_eq!(config.server.port, 8_000);
        // Not under `deploy.resources`: Compose 2 refuses `pids_limit` together
        // with limits there, and Compose 1 does not support `pids` there.
        assert!(["cpus", "mem_limit", "pids_limit"].iter().all(|limit| !service[limit].is_null()), "{name}");
        assert!(service["deploy"]["resources"].is_null(), "{name}");
        let test = &service["healthcheck"]["test"];
        assert_eq!(test[2], "health");
        let dockerfile = read("Dockerfile");
        assert!(dockerfile.contains(&format!("ENTRYPOINT [{}]", test[1])), "{test}");
        assert!(dockerfile.contains("EXPOSE 8000"));
    }
    assert_eq!(services["api"]["ports"][0], "${PORT:-8000}:8000");

    // The profile: three replicas that find the database by name, and a balancer that finds the replicas by name.
    let (database, replica, balancer) = (&services["database"], &services["replica"], &services["balancer"]);
    for service in [database, replica, balancer] {
        assert_eq!(service["profiles"][0], "postgres");
    }
    let of_database = &database["environment"];
    let url =
        format!("postgres://{}@database/{}", text(&of_database["POSTGRES_USER"]), text(&of_database["POSTGRES_DB"]));
    assert_eq!(replica["environment"]["DATABASE_URL"], url);
    assert_eq!(replica["environment"]["POSTROOM_POSTGRES_PASSWORD"], of_database["POSTGRES_PASSWORD"]);
    assert!(replica["depends_on"]["database"].is_object() && replica["deploy"]["replicas"] == 3);
    let mount: Vec<&str> = text(&balancer["volumes"][0]).split(':').collect();
    let command = list(&balancer["command"]);
    assert_eq!(command.last().expect("a command"), mount[1]);
    let caddyfile = read(mount[0]);
    assert!(
        caddyfile.contains("\n:8000 {") && caddyfile.contains("name replica\n") && caddyfile.contains("port 8000\n")
    );
    // The timeouts leave time for another replica after a silent one; Postroom closes no connection in use.
    let config = config(&BTreeMap::from([("WEBHOOK_SECRET".to_owned(), "given".to_owned())]));
    let seconds = |name: &str| Duration::from_secs(number_after(&caddyfile, name));
    assert!(seconds("dial_timeout") * 3 < seconds("lb_try_duration"));
    assert!(
        seconds("keepalive") < config.server.idle_timeout
            && seconds("response_header_timeout") > config.server.request_timeout
    );
    assert!(number_after(&caddyfile, "request_buffers") << 20 > config.server.source_body_bytes_max as u64);
    let (port, variable) = interpolated(text(&balancer["ports"][0]));
    assert!(port.ends_with(":8000") && offered(variable.expect("a setting of its own")), "{port}");
    for volume in ["data", "database"] {
        assert!(compose["volumes"].as_object().expect("a map").contains_key(volume), "{volume}");
    }
}

#[test]
fn the_unit_of_systemd_admits_what_the_program_connects_by() {
    let unit = read("deploy/systemd/postroom.service");
    let families = unit.lines().find_map(|line| line.strip_prefix("RestrictAddressFamilies=")).expect("they are named");
    let families: BTreeSet<_> = families.split(' ').collect();
    assert_eq!(families, BTreeSet::from(["AF_UNIX", "AF_INET", "AF_INET6"]), "PostgreSQL's socket, and the network");
}
