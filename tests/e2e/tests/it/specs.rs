//! Kubernetes' own end-to-end specs: what passes against a child passes through its root.

use umbra_e2e::specs;
use umbra_e2e::user::Proof;
use umbra_e2e::world::World;
use umbra_show::Item;

/// Which specs run: a regular expression. `.` in the long form.
const VARIABLE: &str = "CHILDREN_SPECS";
/// Of each sort some that take seconds: watches, selectors, custom resources, tables, and kubectl.
const SHORT: &str = "Watchers should (be able|receive)|Servers with support for Table|server-side dry-run|Kubectl (api-versions|diff|patch|label)";

#[test]
fn what_passes_against_a_child_passes_through_its_root() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.specs");
    // The suite makes roles and finds what is in every namespace.
    let user = world.user(Proof::Certificate, "specs", &[]);
    user.let_in(&world);
    let there = format!("--user={}", user.name_on_children);
    world.children[0].kubectl().ok([
        "create",
        "clusterrolebinding",
        "specs",
        "--clusterrole=cluster-admin",
        &there,
    ]);

    let focus = std::env::var(VARIABLE).unwrap_or_else(|_| SHORT.to_owned());
    let run = |context| specs::run(world.programs, user.kubectl.kubeconfig(), context, &focus);
    let (direct, through) = (run("north-direct"), run("north"));
    let passed: Vec<&String> = direct
        .iter()
        .filter(|(_, state)| *state == "passed")
        .map(|(name, _)| name)
        .collect();
    assert!(passed.len() > 5, "{direct:#?}");
    let worse: Vec<_> = passed
        .iter()
        .map(|name| (name, through.get(*name)))
        .filter(|(_, state)| state.is_none_or(|state| state != "passed"))
        .collect();
    assert!(worse.is_empty(), "passed directly, and through the root: {worse:#?}");
    item.pass(&format!(
        "{} of {} pass directly, and the same through the root",
        passed.len(),
        direct.len()
    ));
}
