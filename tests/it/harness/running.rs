//! A child process that does not outlive its test.

use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use super::wait_until;

/// A program, running. Killed when dropped, so that a test that fails leaves nothing behind.
pub struct Running(Child);

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("the program starts"))
    }

    /// The same, and it listens until its input ends.
    pub fn listening(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().expect("the program starts"))
    }

    /// What it listens to.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.0.stdin.as_mut().expect("it listens")
    }

    pub fn end_input(&mut self) {
        drop(self.0.stdin.take());
    }

    /// What it writes to stdout, if that is piped and was not taken before.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("piped")
    }

    /// What it writes to stderr, if that is piped and was not taken before.
    pub fn stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().expect("piped")
    }

    /// Asks it to stop by SIGTERM and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        let status = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(status.expect("kill runs").success());
        self.wait()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("the child can be asked").is_some()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the program ends", || self.0.try_wait().expect("the child can be asked"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
