//! Kubernetes' own end-to-end specs: what passes against a child passes through its root, also behind a tunnel.

use std::collections::BTreeMap;

use umbra_e2e::specs;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::ways::{CONTEXTS, Ways};

/// Which specs run: a regular expression. In the long form `\[sig-(api-machinery|auth|cli)\]`: the others want nodes, networks and
/// volumes.
const VARIABLE: &str = "CHILDREN_SPECS";
/// Of each sort some that take seconds: watches, selectors, custom resources, tables, and kubectl.
const SHORT: &str = "Watchers should (be able|receive)|Servers with support for Table|server-side dry-run|Kubectl (api-versions|diff|patch|label)";

#[test]
fn what_passes_against_a_child_passes_through_its_root() {
    let Some(world) = World::shared() else { return };
    let items = [Item::open("children.specs"), Item::open("children.specs.tunnel")];
    let spare = World::spare();
    let ways = Ways::start(&world, &spare);
    // The suite makes roles and finds what is in every namespace.
    let kubeconfig = ways.kubeconfig("specs");
    let focus = std::env::var(VARIABLE).unwrap_or_else(|_| SHORT.to_owned());
    let [direct, root, tunnel] = CONTEXTS.map(|context| specs::run(world.programs, &kubeconfig, context, &focus));
    let passed: Vec<&str> = direct
        .iter()
        .filter(|(_, state)| *state == "passed")
        .map(|(name, _)| name.as_str())
        .filter(|name| specs::NOT_THROUGH_A_ROOT.iter().all(|(end, _)| !name.ends_with(end)))
        .collect();
    assert!(passed.len() > 5, "{direct:#?}");
    let mut through = [root, tunnel];
    for (context, ended) in std::iter::zip(&CONTEXTS[1..], &mut through) {
        let again: Vec<&str> = worse(&passed, ended).into_iter().map(|(name, _)| name).collect();
        if !again.is_empty() {
            // Others want the two processors, too, and specs have deadlines of their own: what counts is how they end alone.
            eprintln!("once more through {context}: {again:#?}");
            let alone = specs::run_alone(world.programs, &kubeconfig, context, &again);
            ended.extend(alone);
        }
    }
    let worse = through.each_ref().map(|through| worse(&passed, through));
    let all_pass = worse.iter().all(Vec::is_empty);
    for (item, worse) in std::iter::zip(items, &worse) {
        let figure = format!(
            "{} pass directly and can through a root, {} of them do not",
            passed.len(),
            worse.len()
        );
        item.measure(&figure, worse.is_empty());
    }
    ways.end();
    assert!(
        all_pass,
        "passed directly, and not through the root, or the tunnel: {worse:#?}"
    );
}

/// What passed directly and did not through a hub, and how it ended there.
fn worse<'a>(passed: &[&'a str], through: &'a BTreeMap<String, String>) -> Vec<(&'a str, Option<&'a str>)> {
    passed
        .iter()
        .map(|name| (*name, through.get(*name).map(String::as_str)))
        .filter(|(_, state)| *state != Some("passed"))
        .collect()
}
