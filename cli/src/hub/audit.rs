//! The flags of the audit log, named as those of kube-apiserver.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio_util::task::TaskTracker;
use umbra_apiserver::audit::{AuditLog, Destination, Rotation};

/// What kube-apiserver's log files take where no size is given, in MB.
const DEFAULT_SIZE: u64 = 100;

/// Whether and where requests are written down.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Audit")]
pub(crate) struct AuditArguments {
    /// Write every request into this file, those to children as what they are there, as audit.k8s.io/v1 events of the level
    /// Metadata; `-` is standard output [default: nowhere].
    #[arg(long, env = "UMBRA_AUDIT_LOG_PATH", value_name = "FILE")]
    audit_log_path: Option<String>,
    /// The megabytes after which the audit log is moved aside; 0 is 100.
    #[arg(long, env = "UMBRA_AUDIT_LOG_MAXSIZE", default_value_t = 0, value_name = "MB")]
    audit_log_maxsize: u64,
    /// How many audit logs that were moved aside are kept; 0 is all.
    #[arg(long, env = "UMBRA_AUDIT_LOG_MAXBACKUP", default_value_t = 0, value_name = "NUMBER")]
    audit_log_maxbackup: usize,
    /// The days for which audit logs that were moved aside are kept; 0 is for ever.
    #[arg(long, env = "UMBRA_AUDIT_LOG_MAXAGE", default_value_t = 0, value_name = "DAYS")]
    audit_log_maxage: u32,
}

impl AuditArguments {
    /// Opens the log and lets it be written by a task of `tracker`, until [`AuditLog::end`].
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(crate) fn start(&self, tracker: &TaskTracker) -> Result<Option<AuditLog>> {
        let Some(destination) = self.destination() else {
            return Ok(None);
        };
        let (log, writer) = AuditLog::open(destination)?;
        tracker.spawn(writer.run());
        Ok(Some(log))
    }

    fn destination(&self) -> Option<Destination> {
        let megabytes = match self.audit_log_maxsize {
            0 => DEFAULT_SIZE,
            given => given,
        };
        match self.audit_log_path.as_deref()? {
            "" => None,
            "-" => Some(Destination::StandardOutput),
            path => Some(Destination::File(
                path.into(),
                Rotation {
                    max_size: megabytes.saturating_mul(1 << 20),
                    max_backups: self.audit_log_maxbackup,
                    max_age: Duration::from_secs(u64::from(self.audit_log_maxage) * 24 * 3600),
                },
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        audit: AuditArguments,
    }

    fn destination(flags: &[&str]) -> Option<Destination> {
        let arguments = std::iter::once("umbra").chain(flags.iter().copied());
        Command::try_parse_from(arguments).unwrap().audit.destination()
    }

    #[test]
    fn flags_mean_what_they_mean_in_kubernetes() {
        assert!(destination(&[]).is_none());
        assert!(matches!(
            destination(&["--audit-log-path", "-"]),
            Some(Destination::StandardOutput)
        ));
        let flags = ["--audit-log-path=/x", "--audit-log-maxage=2", "--audit-log-maxbackup=3"];
        let Some(Destination::File(path, rotation)) = destination(&flags) else {
            panic!("a file was named");
        };
        assert_eq!((path.to_str(), rotation.max_backups), (Some("/x"), 3));
        assert_eq!((rotation.max_size, rotation.max_age.as_secs()), (100 << 20, 172_800));
    }
}
