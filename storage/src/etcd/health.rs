//! What is known of the members, and whether the store can serve.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Client, KvClient, StatusResponse};

use super::Core;
use super::connection::RequestError;
use super::failure::is_denied;
use super::member::{AttemptError, Member};
use crate::{Error, Result};

/// How long a member may take to say how it is: the deadline of kube-apiserver's check of etcd.
const DEADLINE: Duration = Duration::from_secs(2);

/// How often members are asked for their versions while nothing happens. A watch that connects asks its member itself.
const INTERVAL: Duration = Duration::from_secs(30);

impl Core {
    /// Asks a member how it is.
    async fn status(&self, member: &Member) -> Result<StatusResponse, AttemptError> {
        let status = member
            .attempt(DEADLINE, |mut client: Client| async move { client.status().await })
            .await?;
        member.learn(&status);
        Ok(status)
    }

    /// Asks every member for its version, and decides whether requested progress can be trusted.
    pub(super) async fn look_at_versions(&self) {
        let asked = self.connection.members.iter().map(|member| self.status(member));
        for (member, status) in self
            .connection
            .members
            .iter()
            .zip(futures::future::join_all(asked).await)
        {
            if let Err(error) = status {
                tracing::debug!(
                    endpoint = member.endpoint,
                    reason = error.describe(),
                    "an etcd member does not answer"
                );
            }
        }
        self.decide_on_progress();
    }

    /// Whether every member that has ever said its version can be trusted, and one has.
    pub(super) fn decide_on_progress(&self) {
        let versions = self.connection.members.iter().filter_map(|member| member.facts());
        let mut trusted = versions.map(|facts| facts.version.is_some_and(super::version::Version::progress_on_request));
        let all = trusted
            .next()
            .is_some_and(|first| first && trusted.all(|trusted| trusted));
        if self.progress_on_request.swap(all, Ordering::Relaxed) && !all {
            tracing::warn!(
                "a member of etcd is older than 3.4.31 or 3.5.13: consistent reads go to etcd instead of the watch cache"
            );
        }
    }

    pub(super) async fn check(&self) -> Result<()> {
        if self.shutdown.is_cancelled() {
            return Err(Error::unavailable("it has been closed"));
        }
        let nothing = self.keys.own("", "");
        let read = self.connection.read_within(DEADLINE, |mut client: KvClient| {
            let nothing = nothing.clone();
            async move { client.get(nothing, None).await }
        });
        let members = self.connection.members.iter();
        let statuses = futures::future::join_all(members.map(|member| self.status(member)));
        let (read, statuses) = futures::join!(read, statuses);
        read.map_err(RequestError::unexpected)?;
        let mut alarms = Vec::new();
        for (member, status) in self.connection.members.iter().zip(statuses) {
            match status {
                Ok(status) => alarms.extend(status.errors().iter().filter_map(|text| alarm(member, text))),
                Err(AttemptError::Etcd(error)) if is_denied(&error) => alarms.extend(ask_for_alarms(member).await),
                // The read has shown that the cluster serves without it.
                Err(_) => {}
            }
        }
        if alarms.is_empty() {
            return Ok(());
        }
        Err(Error::unavailable(alarms.join("; ")))
    }
}

/// The alarms, as a member tells them to everybody. It costs an entry of etcd's log, unlike what it tells root.
async fn ask_for_alarms(member: &Member) -> Vec<String> {
    let asked = member.attempt(DEADLINE, |mut client: Client| async move {
        client.alarm(AlarmAction::Get, AlarmType::None, None).await
    });
    let Ok(answer) = asked.await else {
        return Vec::new();
    };
    let kinds = answer.alarms().iter().filter_map(|raised| match raised.alarm() {
        AlarmType::Nospace => alarm(member, "NOSPACE"),
        AlarmType::Corrupt => alarm(member, "CORRUPT"),
        AlarmType::None => None,
    });
    kinds.collect()
}

/// What a member's word of an alarm means. Each member knows the alarms of all.
fn alarm(member: &Member, text: &str) -> Option<String> {
    let meaning = if text.contains("NOSPACE") {
        "the database is full and takes no writes: compact, defragment, and disarm the alarm NOSPACE"
    } else if text.contains("CORRUPT") {
        "the data of a member is damaged (alarm CORRUPT): restore that member from the others"
    } else {
        return None;
    };
    Some(format!("etcd at {}: {meaning}", member.endpoint))
}

/// Looks at the members until the store is closed.
pub(super) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL.mul_f64(rand::random_range(0.9..1.1))) => {}
        }
        core.look_at_versions().await;
    }
}
