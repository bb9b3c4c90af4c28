//! `quickstart.sh` and `test_api.sh`, as run in a fresh clone of the repository.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::Setup;
use crate::harness::server::wait_until;

/// An address that only this test uses: the script needs the port before the program has one.
const HOST: &str = "127.0.79.1";

/// The script, interrupted when dropped, like with Ctrl-C: if it were killed, the service would continue.
struct Quickstart(std::process::Child);

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn quickstart_takes_over_what_the_env_file_says_and_test_api_finds_nothing_wrong() {
    if ["bash", "curl"].iter().any(|tool| Command::new(tool).arg("--version").output().is_err()) {
        println!("skipped: bash or curl is not here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for script in ["quickstart.sh", "test_api.sh"] {
        fs::copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(script), at(script)).unwrap();
    }
    // The program is already built; a fake cargo does nothing.
    for (folder, tool) in [("tools", "cargo"), ("target/release", "")] {
        fs::create_dir_all(at(folder)).unwrap();
        if !tool.is_empty() {
            fs::write(at(folder).join(tool), "#!/bin/sh\n").unwrap();
            fs::set_permissions(at(folder).join(tool), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    symlink(env!("CARGO_BIN_EXE_postroom"), at("target/release/postroom")).unwrap();
    // A token cannot be derived from a digest: the scripts read with the other one.
    let digest = "sha256:".to_owned() + &"0a".repeat(32);
    let settings = "# as people write it\n\nWEBHOOK_SECRET=\"a secret # with blanks\" # and why\nexport API_TOKEN='{digest}, to.ken'\n\
                    WHATSAPP_APP_SECRET=app   # the app's\nWHATSAPP_VERIFY_TOKEN=verify\nCRM_SECRET=crm\nPOSTROOM_CONFIG=sources.toml\n\
                    DATABASE_URL=sqlite:///other.db\nLOG=nothing of the script's\n";
    fs::write(at(".env"), settings.replace("{digest}", &digest) + "HOST=" + HOST + "\nPORT=8000\n").unwrap();
    let source = "[source.crm]\nprovider = \"generic\"\nsecret_env = \"CRM_SECRET\"\nsignature_header = \"X-Crm\"\n";
    fs::write(at("sources.toml"), source).unwrap();
    let path = format!("{}:{}", at("tools").display(), std::env::var("PATH").unwrap());
    let run = |script: &str| {
        let mut command = Command::new("bash");
        command.arg(at(script)).env_clear().env("PATH", &path).env("DATABASE_URL", "sqlite:///data/mine.db");
        command
    };
    let quickstart = run("quickstart.sh").stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it runs");
    let mut quickstart = Quickstart(quickstart);
    let curl = |path: &str| {
        let output = Command::new("curl").args(["-s", "-m", "5", &format!("http://{HOST}:8000{path}")]).output();
        String::from_utf8(output.expect("curl runs").stdout).expect("UTF-8")
    };
    wait_until("it is ready", || {
        assert!(quickstart.0.try_wait().unwrap().is_none(), "it ended");
        (curl("/health/ready") == r#"{"status":"ready"}"#).then_some(())
    });
    // A source from a variable, and one from the settings file.
    let handshake = "/webhook/whatsapp?hub.mode=subscribe&hub.verify_token=verify&hub.challenge=7";
    assert_eq!(curl(handshake), "7");
    assert_eq!(curl("/webhook/crm"), r#"{"detail":"Method Not Allowed"}"#);
    // The environment has precedence.
    assert!(at("data/mine.db").exists() && !at("other.db").exists());

    let base_url = format!("http://{HOST}:8000");
    let tested = run("test_api.sh").env("BASE_URL", base_url).output().expect("it runs");
    let told = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(tested.status.success(), "{told}{}", String::from_utf8_lossy(&tested.stderr));
}

/// The code blocks in a language under a heading of README.md, in order.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let readme =
        fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("README.md")).unwrap();
    let section =
        readme.split(&format!("\n## {heading}\n")).nth(1).expect("the heading").split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_calls_of_the_readme_work_word_for_word_after_quickstart() {
    if ["bash", "curl", "openssl", "python3", "node"].iter().any(|tool| Command::new(tool).arg("-h").output().is_err())
    {
        return println!("skipped: bash, curl, openssl, python3 or node is not here");
    }
    let secret = "0123456789abcdef";
    let server = Setup::new().env("WEBHOOK_SECRET", secret).start();
    // Like a clone in which quickstart.sh has run.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("target/release")).unwrap();
    symlink(env!("CARGO_BIN_EXE_postroom"), folder.path().join("target/release/postroom")).unwrap();
    fs::write(folder.path().join(".env"), format!("# settings\nWEBHOOK_SECRET={secret}\n")).unwrap();
    let here = |text: String| text.replace("http://localhost:8000", &format!("http://{}", server.address));
    let run = |script: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &here(script.to_owned())])
            .current_dir(folder.path())
            .env_remove("WEBHOOK_SECRET");
        let output = bash.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script}\n{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let calls = blocks("Calls", "bash");
    let (setting, first) = (&calls[0], &calls[1]);
    for (language, program) in [("python", "python3 -"), ("js", "node --input-type=module -")] {
        let code = here(blocks("Signing", language).remove(0));
        fs::write(folder.path().join("code"), code).unwrap();
        let printed = run(&format!("{setting}\n{program} < code"));
        assert!(printed.contains(r#"{"status":"ok"}"#), "{language}: {printed}");
    }
    let answers = run(&format!("{setting}\n{}", calls[1..].join("\n")));
    for part in
        [r#"{"status":"ok"}"#, r#"{"detail":"invalid signature"}"#, r#""total":3"#, r#""total_messages":3"#, "ready"]
    {
        assert!(answers.contains(part), "{part}: {answers}");
    }
    // The first call alone, and both ways to sign, give the same result.
    let body = first.lines().next().unwrap();
    let signatures = run(&format!("{setting}\n{body}\n{}", blocks("Signing", "bash")[0]));
    let lines: Vec<&str> = signatures.lines().collect();
    assert!(lines.len() == 2 && lines[0] == lines[1], "{signatures}");
    assert_eq!(server.rows(), 3);
}

#[test]
fn asking_test_api_for_help_sends_nothing() {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("test_api.sh");
    let server = Setup::new().start();
    let run = |argument: &str| {
        let mut command = Command::new("bash");
        let base_url = format!("http://{}", server.address);
        command
            .arg(&script)
            .arg(argument)
            .env("BASE_URL", base_url)
            .env("WEBHOOK_SECRET", "testsecret")
            .output()
            .unwrap()
    };
    for (argument, status, part) in [("--help", 0, "BASE_URL="), ("-h", 0, "BASE_URL="), ("--hlep", 2, "")] {
        let output = run(argument);
        assert_eq!(output.status.code(), Some(status), "{argument}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{argument}");
    }
    assert_eq!(server.rows(), 0);
}
