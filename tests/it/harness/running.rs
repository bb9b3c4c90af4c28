//! A child process that does not outlive its test.

use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use super::wait_until;

/// A running program. Killed when dropped, so that a failed test leaves no process.
pub struct Running(Child);

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("the program starts"))
    }

    /// The same, with a piped standard input.
    pub fn listening(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().expect("the program starts"))
    }

    /// Its standard input.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.0.stdin.as_mut().expect("it listens")
    }

    pub fn end_input(&mut self) {
        drop(self.0.stdin.take());
    }

    /// Its stdout, if that is piped and was not taken before.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("piped")
    }

    /// Its stderr, if that is piped and was not taken before.
    pub fn stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().expect("piped")
    }

    /// Stops it by SIGTERM and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        let status = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(status.expect("kill runs").success());
        self.wait()
    }

    /// Kills it like `kill -9`.
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
