//! Commands: run to their end within a deadline, or started as a [`Process`].
//!
//! Every child dies with the test process, however that ends: `setpriv` asks the kernel for it. As the kernel means
//! the *thread* that started the child, all children are started by one thread that lives as long as the process.

use crate::{netns::Namespace, process::Process, scratch::Scratch, tools};
use anyhow::{Context, Result, bail};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        mpsc::{Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};
use tokio::time::Instant;

/// A command with its arguments, environment and place.
#[derive(Clone, Debug)]
pub struct Program {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<String>,
    netns: Option<String>,
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that succeeded.
    ///
    /// # Errors
    /// When it failed: the command, its status and what it wrote.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("`{}` failed ({}): {}{}", self.command, self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

impl Program {
    /// The command `program`, a path or a name on the tests' `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: vec![("PATH".into(), tools::path())],
            stdin: None,
            netns: None,
        }
    }

    /// Our own executable `name`.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn ours(name: &str) -> Result<Self> {
        Ok(Self::new(tools::ours(name)?))
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().to_owned()));
        self
    }

    /// Gives it `text` to read; otherwise its standard input is empty.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Runs it inside a network namespace.
    #[must_use]
    pub fn within(mut self, namespace: &Namespace) -> Self {
        self.netns = Some(namespace.name().to_owned());
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, or has not ended by `deadline` (it is killed).
    pub async fn run(&self, deadline: Duration) -> Result<Output> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.run_blocking(deadline))
            .await
            .context("the runner panicked")?
    }

    /// [`Program::run`] where nothing can be awaited.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_blocking(&self, deadline: Duration) -> Result<Output> {
        let scratch = Scratch::new("run")?;
        let (out, err) = (scratch.path().join("out"), scratch.path().join("err"));
        let mut child = self.spawn(File::create(&out)?, File::create(&err)?)?;
        let read = |path: &Path| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
        let Some(status) = wait_for(&mut child, deadline)? else {
            child.kill().and_then(|()| child.wait()).context("cannot kill it")?;
            bail!("`{self}` had not ended after {deadline:?}: {}{}", read(&out)?, read(&err)?);
        };
        Ok(Output { command: self.to_string(), status, stdout: read(&out)?, stderr: read(&err)? })
    }

    /// Starts it and leaves it running as `name`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, name: &str) -> Result<Process> {
        let scratch = Scratch::new(name)?;
        let path = scratch.path().join("log");
        let log = File::create(&path)?;
        let child = self.spawn(log.try_clone()?, log)?;
        Ok(Process::new(name, child, path, scratch))
    }

    fn spawn(&self, stdout: File, stderr: File) -> Result<Child> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(netns) = &self.netns {
            command.arg("nsenter").arg(format!("--net=/run/netns/{netns}")).arg("--");
        }
        command.arg(&self.program).args(&self.args).envs(self.env.iter().cloned());
        command.stdout(stdout).stderr(stderr).stdin(match &self.stdin {
            None => Stdio::null(),
            Some(text) => {
                let scratch = Scratch::new("stdin")?;
                // The open file stays readable when its folder goes.
                Stdio::from(File::open(scratch.write("stdin", text)?)?)
            }
        });
        spawn(command).with_context(|| format!("cannot start `{self}`"))
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.to_string_lossy()))
    }
}

/// Waits until `child` has ended, at most `deadline`.
pub(crate) fn wait_for(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, SyncSender<io::Result<Child>>);
    static STARTER: OnceLock<Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, todo) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in todo {
                // Nobody listens only when the asking test has been given up; its child must not outlive it.
                if let Err(lost) = answer.send(command.spawn())
                    && let Ok(mut child) = lost.0
                {
                    child.kill().and_then(|()| child.wait()).ok();
                }
            }
        });
        jobs
    });
    let (answer, child) = sync_channel(1);
    let gone = |_| io::Error::other("the thread that starts children is gone");
    starter.send((command, answer)).map_err(|e| gone(e.to_string()))?;
    child.recv().map_err(|e| gone(e.to_string()))?
}
