//! Real etcd servers for tests: one member or several, on loopback, ended with the value that stands for them.
//!
//! | variable | what it names | otherwise |
//! |---|---|---|
//! | `UMBRA_ETCD_34` | an etcd 3.4, such as the one of Debian's `etcd-server` | `etcd` of `PATH` |
//! | `KUBE_BIN` | the folder that `tests/kube/build.sh` has filled, with an etcd 3.6 | none: those tests are skipped |
//!
//! Where a program is missing, [`EtcdServers::start`] says so on standard error and answers `None`, so that the test can
//! return; where `CI` is `true` it panics instead.
//!
//! Every member keeps its ports while it is down, so that it can be started again. They are taken from below 32,768, where
//! Linux begins to hand out the local ports of outgoing connections: one of those would be in the way otherwise.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions, Permission};
use rustix::process::{Pid, Signal, kill_process};

use super::etcd_certificates::Authority;
pub use super::etcd_certificates::ClientCertificate;

/// How long a cluster may take until it answers: a deadline for a test that would hang, not a measurement.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at again.
const INTERVAL: Duration = Duration::from_millis(20);

/// How often other ports are tried before giving up: another process may take one between the choice and the start.
const STARTS: usize = 5;

/// Which etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdVersion {
    /// 3.4, as Debian ships it: its progress notifications cannot be trusted.
    V34,
    /// 3.6, which is what Kubernetes 1.36 runs with.
    V36,
}

impl EtcdVersion {
    /// The program, and why it cannot be run if it cannot.
    fn program(self) -> Result<PathBuf, String> {
        let named = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
        let path = match self {
            Self::V34 => named("UMBRA_ETCD_34").map_or_else(|| PathBuf::from("etcd"), PathBuf::from),
            Self::V36 => {
                let folder = named("KUBE_BIN").ok_or("KUBE_BIN is not set; tests/kube/build.sh fills such a folder")?;
                PathBuf::from(folder).join("etcd")
            }
        };
        let found = Command::new(&path).arg("--version").output();
        let found = found.map_err(|error| format!("{} --version: {error}", path.display()))?;
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        let version = text.lines().next().unwrap_or_default();
        let wanted = match self {
            Self::V34 => "etcd Version: 3.4.",
            Self::V36 => "etcd Version: 3.6.",
        };
        if version.starts_with(wanted) {
            Ok(path)
        } else {
            Err(format!("{} is another version: {version:?}", path.display()))
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct EtcdServersOptions {
    members: usize,
    version: EtcdVersion,
    tls: bool,
    user: Option<(String, String, String)>,
    flags: Vec<String>,
}

impl EtcdServersOptions {
    /// `members` members, without TLS and without users.
    #[must_use]
    pub fn new(members: usize, version: EtcdVersion) -> Self {
        assert!(members > 0, "a cluster has a member");
        Self {
            members,
            version,
            tls: false,
            user: None,
            flags: Vec::new(),
        }
    }

    /// Serves TLS to clients, and asks them for a certificate ([`EtcdServers::client_certificate`]).
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Enables authentication. Beside `root` there is a user that may read and write the keys under `prefix`.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, prefix: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned(), prefix.to_owned()));
        self
    }

    /// One more flag for every member, such as `--quota-backend-bytes=16777216`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Starts the members and waits until each of them answers.
    ///
    /// # Panics
    /// If they do not, or if the program is missing and `CI` is `true`.
    pub async fn start(self) -> Option<EtcdServers> {
        let program = match self.version.program() {
            Ok(program) => program,
            Err(reason) => {
                skipped(&reason);
                return None;
            }
        };
        for start in 1.. {
            let mut servers = EtcdServers::spawn(&self, &program);
            match servers.wait_until_healthy().await {
                Ok(()) => {
                    if let Some((name, password, prefix)) = &self.user {
                        servers.enable_authentication(name, password, prefix).await;
                    }
                    return Some(servers);
                }
                Err(reason) => assert!(start < STARTS, "{reason}"),
            }
        }
        unreachable!("the last start answers or panics")
    }
}

/// Says that a test is skipped, on a line of its own that the test harness does not keep to itself.
fn skipped(reason: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "no test of etcd may be skipped here: {reason}"
    );
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = std::io::stderr().write_all(format!("\nSKIPPED {test}: {reason}\n").as_bytes());
}

/// A running cluster. Dropping it ends every member.
#[derive(Debug)]
pub struct EtcdServers {
    members: Vec<Member>,
    authority: Option<Authority>,
    user: Option<(String, String)>,
    directory: tempfile::TempDir,
}

/// A member, running or not.
#[derive(Debug)]
struct Member {
    endpoint: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

/// A process, and the shell that ends it if the tests die without doing so.
#[derive(Debug)]
struct Process {
    server: Child,
    reaper: Child,
}

impl EtcdServers {
    /// Starts a cluster without TLS and users.
    ///
    /// # Panics
    /// As [`EtcdServersOptions::start`].
    pub async fn start(members: usize, version: EtcdVersion) -> Option<Self> {
        EtcdServersOptions::new(members, version).start().await
    }

    fn spawn(options: &EtcdServersOptions, program: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("umbra-etcd-").tempdir();
        let directory = directory.expect("there is room for temporary files");
        let authority = options.tls.then(|| Authority::new(directory.path()));
        let ports = free_ports(2 * options.members);
        let scheme = if options.tls { "https" } else { "http" };
        let cluster: Vec<_> = (0..options.members)
            .map(|member| format!("m{member}=http://127.0.0.1:{}", ports[2 * member + 1]))
            .collect();
        let members = (0..options.members).map(|member| {
            let endpoint = format!("{scheme}://127.0.0.1:{}", ports[2 * member]);
            let peer = format!("http://127.0.0.1:{}", ports[2 * member + 1]);
            let data = directory.path().join(format!("m{member}"));
            let mut arguments = vec![
                format!("--name=m{member}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={endpoint}"),
                format!("--advertise-client-urls={endpoint}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", cluster.join(",")),
                "--initial-cluster-state=new".to_owned(),
                format!("--initial-cluster-token={}", ports[0]),
                "--logger=zap".to_owned(),
            ];
            arguments.extend(authority.iter().flat_map(Authority::server_flags));
            arguments.extend(options.flags.iter().cloned());
            Member {
                endpoint,
                program: program.to_owned(),
                arguments,
                log: directory.path().join(format!("m{member}.log")),
                process: None,
            }
        });
        let mut servers = Self {
            members: members.collect(),
            authority,
            user: None,
            directory,
        };
        servers.members.iter_mut().for_each(Member::start);
        servers
    }

    /// Where clients reach the members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// The authority of the servers' certificates and a client certificate, where they serve TLS.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.authority.as_ref().map(Authority::client)
    }

    /// Name and password of the user, where authentication is enabled.
    #[must_use]
    pub fn user(&self) -> Option<&(String, String)> {
        self.user.as_ref()
    }

    /// Where the members keep their data and logs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends a member with SIGKILL.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// Starts a member again that was killed, with the data it had, and waits until it answers.
    ///
    /// # Panics
    /// If it runs, or does not come to answer.
    pub async fn restart(&mut self, member: usize) {
        self.start_again(member);
        self.wait_for(member).await.unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Starts a member again that was killed, and does not wait.
    ///
    /// # Panics
    /// If it runs.
    pub fn start_again(&mut self, member: usize) {
        assert!(self.members[member].process.is_none(), "member {member} runs");
        self.members[member].start();
    }

    /// Stops a member with SIGSTOP: its connections stay, and nothing answers.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self, member: usize) {
        self.members[member].signal(Signal::STOP);
    }

    /// Lets a paused member go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self, member: usize) {
        self.members[member].signal(Signal::CONT);
    }

    /// Which member is the leader, as soon as the running members know one.
    ///
    /// # Panics
    /// If they do not come to know one.
    pub async fn leader(&self) -> usize {
        let found = async {
            loop {
                for member in 0..self.members.len() {
                    if self.members[member].process.is_some() && self.is_leader(member).await {
                        return member;
                    }
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .expect("the members elect a leader")
    }

    async fn is_leader(&self, member: usize) -> bool {
        let status = async { self.client(member).await?.status().await };
        match tokio::time::timeout(Duration::from_secs(1), status).await {
            Ok(Ok(status)) => status
                .header()
                .is_some_and(|header| header.member_id() == status.leader()),
            _ => false,
        }
    }

    /// A plain client of one member, as root where authentication is enabled.
    ///
    /// # Errors
    /// If the member refuses it.
    ///
    /// # Panics
    /// If the certificates of the servers are no certificates.
    pub async fn client(&self, member: usize) -> Result<Client, etcd_client::Error> {
        let mut options = ConnectOptions::new();
        if let Some(authority) = &self.authority {
            options = options.with_tls(authority.client().tls());
        }
        if self.user.is_some() {
            options = options.with_user("root", ROOT_PASSWORD);
        }
        Client::connect([&self.members[member].endpoint], Some(options)).await
    }

    /// Waits until every running member answers a linearizable read.
    ///
    /// # Errors
    /// If one of them does not, with the end of its log.
    async fn wait_until_healthy(&mut self) -> Result<(), String> {
        for member in 0..self.members.len() {
            if self.members[member].process.is_some() {
                self.wait_for(member).await?;
            }
        }
        Ok(())
    }

    async fn wait_for(&mut self, member: usize) -> Result<(), String> {
        let healthy = async {
            loop {
                let answer = async { self.client(member).await?.get("health", Some(GetOptions::new())).await };
                if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), answer).await {
                    return true;
                }
                if self.members[member].has_ended() {
                    return false;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        if matches!(tokio::time::timeout(DEADLINE, healthy).await, Ok(true)) {
            return Ok(());
        }
        let log = std::fs::read_to_string(&self.members[member].log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(20).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        Err(format!(
            "etcd member {member} does not answer; its log ends with\n{}",
            tail.join("\n")
        ))
    }

    async fn enable_authentication(&mut self, name: &str, password: &str, prefix: &str) {
        let mut client = self.client(0).await.expect("the member has answered");
        let enabled = async {
            client.user_add("root", ROOT_PASSWORD, None).await?;
            client.user_grant_role("root", "root").await?;
            client.user_add(name, password, None).await?;
            client.role_add(name).await?;
            client
                .role_grant_permission(name, Permission::read_write(prefix).with_prefix())
                .await?;
            client.user_grant_role(name, name).await?;
            client.auth_enable().await.map(drop)
        };
        enabled.await.expect("authentication can be enabled");
        self.user = Some((name.to_owned(), password.to_owned()));
        self.wait_until_healthy().await.expect("the members go on");
    }
}

/// The password of `root` where authentication is enabled.
pub const ROOT_PASSWORD: &str = "the password of root";

impl Member {
    fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", self.log.display()));
        let server = Command::new(&self.program)
            .args(&self.arguments)
            // ETCD_… variables would be flags.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let server = server.unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        // Its input closes when the tests end, however they end.
        let reaper = Command::new("sh")
            .args(["-c", "read -r _; kill -KILL \"$1\"", "sh", &server.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        self.process = Some(Process { server, reaper });
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the member runs");
        kill_process(Pid::from_child(&process.server), signal).expect("a child can be signalled");
    }

    fn has_ended(&mut self) -> bool {
        self.process
            .as_mut()
            .is_none_or(|process| !matches!(process.server.try_wait(), Ok(None)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The reaper first: once the server is waited for, its number may be another process's.
        for child in [&mut self.reaper, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports of 127.0.0.1 that nothing listens on.
fn free_ports(count: usize) -> Vec<u16> {
    let mut listeners = Vec::new();
    while listeners.len() < count {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", rand::random_range(10_000..32_768))) {
            listeners.push(listener);
        }
    }
    let ports = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()));
    ports.collect::<Result<_, _>>().expect("a listener has an address")
}
