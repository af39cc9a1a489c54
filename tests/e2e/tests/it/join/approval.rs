//! An agent that a person has to approve.

use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::agents::Agents;
use super::scene::{GUEST, says};

/// The rows of `kubectl get clusterjoinrequests`, and what the header says.
fn requests(agents: &Agents<'_>) -> (Vec<String>, Vec<Vec<String>>) {
    let table = agents.hub.root().ok("get clusterjoinrequests");
    let mut rows = table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    (rows.next().unwrap_or_default(), rows.collect())
}

#[test]
fn a_person_decides_about_an_agent() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.approval");
    let spare = World::spare();
    let agents = Agents::new(&world, &spare);
    agents.join_and_apply(&["--manual-approval"]);
    let nobody_asked = agents.decide("approve", GUEST).expect_failure();
    assert!(nobody_asked.contains("no cluster guest has one"), "{nobody_asked}");

    let mut agent = agents.agent();
    says(
        &agent.process,
        "waiting until somebody approves it: umbra approve guest-",
    );
    assert_eq!(agent.probe("/livez"), "200 ok");
    wait::for_text(
        "it is not ready",
        || agent.probe("/readyz"),
        |text| text == "503 waiting for approval",
    );
    let (header, rows) = requests(&agents);
    assert_eq!(
        header,
        ["NAME", "CLUSTER", "REQUESTOR", "APPROVED", "DENIED", "EXPIRES", "AGE"]
    );
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert!(
        row[0].starts_with("guest-") && row[1..3] == ["guest", "umbra:bootstrap:guest"],
        "{row:?}"
    );
    assert_eq!(row.len(), 4, "nothing has been decided: {row:?}");
    // Another token, asked for without the flag, does not approve it.
    agents.another_token();
    assert_eq!(requests(&agents).1[0].len(), 4);

    // Denied: the agent says so. With the new token it may ask again, and nothing approves that by itself.
    let first = row[0].clone();
    let denied = agents.decide("deny", GUEST).expect_success();
    assert_eq!(denied, "", "what was done is told on standard error");
    says(&agent.process, "has denied ClusterJoinRequest guest-");
    agent.process.stop();
    let row = &requests(&agents).1[0];
    assert_eq!((&row[0], row[3].as_str()), (&first, "True"), "{row:?}");
    let refused = agents.decide("approve", &first).expect_failure();
    assert!(refused.contains("has been denied; delete it"), "{refused}");
    agents.hub.root().ok(["delete", "clusterjoinrequest", &first]);

    agents.join_and_apply(&[]);
    let mut agent = agents.agent();
    says(&agent.process, "waiting until somebody approves it");
    let uid = agents
        .cluster
        .kubectl()
        .path("namespace kube-system", "{.metadata.uid}");
    let approved = agents.decide("approve", GUEST);
    let told = approved.stderr.clone();
    approved.expect_success();
    assert!(
        told.contains("approved: guest-") && told.contains(&uid) && told.contains("Kubernetes v1."),
        "{told}"
    );
    agents.hub.wait_for_child(GUEST);
    wait::for_text("it is ready", || agent.probe("/readyz"), |text| text == "200 ok");
    let (_, rows) = requests(&agents);
    assert!(
        rows.len() == 1 && rows[0][3] == "True" && rows[0].len() == 6,
        "{rows:?}"
    );
    assert!(
        agents
            .decide("approve", GUEST)
            .expect_failure()
            .contains("no cluster guest has one")
    );

    agents.decide("deny", GUEST).expect_success();
    wait::for_text(
        "it is not ready",
        || agent.probe("/readyz"),
        |text| text.starts_with("503 "),
    );
    assert_eq!(agent.probe("/livez"), "200 ok", "starting again would not help");
    agent.process.stop();
    agents
        .leave(&[
            "--context",
            &spare.name,
            "--kubeconfig",
            &spare.kubeconfig().to_string_lossy(),
        ])
        .expect_success();
    item.pass("pending, denied, approved, denied again; livez and readyz");
}
