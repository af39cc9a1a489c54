//! CRDs and their custom resources are copied like anything else.

use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::{namespace_everywhere, sorted_lines};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.test}
spec:
  group: example.test
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer, minimum: 1, description: How large it is.}}
"#;

fn widget(name: &str, size: u32) -> String {
    format!("{{apiVersion: example.test/v1, kind: Widget, metadata: {{name: {name}}}, spec: {{size: {size}}}}}")
}

#[test]
fn a_new_kind_appears_in_the_view_and_goes_again() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("view.custom");
    namespace_everywhere(&world, "view-custom");
    for (child, size) in world.children.iter().zip([3, 5]) {
        let kubectl = child.kubectl().namespace("view-custom");
        kubectl.apply(DEFINITION);
        kubectl.ok("wait crd/widgets.example.test --for=condition=Established --timeout=60s");
        kubectl.apply(&widget("gear", size));
    }
    let view = world.hub.view().namespace("view-custom");
    let (table, took) = wait::for_text(
        "both widgets",
        || {
            let outcome = view.run("get widgets");
            format!("{}{}", outcome.stdout, outcome.stderr)
        },
        |text| text.contains("gear@north") && text.contains("gear@south"),
    );
    let row = |cluster: &str| {
        table
            .lines()
            .find(|line| line.starts_with(cluster))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        table.lines().next().is_some_and(|header| header.contains("SIZE")),
        "{table}"
    );
    assert!(row("north").split_whitespace().any(|cell| cell == "3"), "{table}");
    assert!(row("south").split_whitespace().any(|cell| cell == "5"), "{table}");
    assert!(view.ok("get crds -o name").contains("widgets.example.test@north"));
    // Documents follow a little later, as they do in a cluster.
    wait::for_text(
        "the schema",
        || {
            let outcome = view.run("explain widget.spec.size");
            format!("{}{}", outcome.stdout, outcome.stderr)
        },
        |text| text.contains("How large it is."),
    );

    view.apply(&widget("gear@south", 8));
    assert_eq!(
        world.children[1]
            .kubectl()
            .path("widget gear -n view-custom", "{.spec.size}"),
        "8"
    );
    let invalid = view.run_with(&widget("gear@south", 0), "apply -f -").expect_failure();
    assert!(invalid.contains("greater than or equal to 1"), "{invalid}");

    world.children[1].kubectl().ok("delete crd widgets.example.test");
    wait::until("south's widgets are gone, north's are not", wait::DEADLINE, || {
        let left = sorted_lines(&view.ok("get widgets -o name"));
        if left == ["widget.example.test/gear@north"] {
            Ok(())
        } else {
            Err(left.join("\n"))
        }
    });
    world.children[0].kubectl().ok("delete crd widgets.example.test");
    wait::until("the kind is gone", wait::DEADLINE, || {
        let resources = view.ok("api-resources --api-group=example.test -o name");
        if resources.trim().is_empty() {
            Ok(())
        } else {
            Err(resources)
        }
    });
    item.pass(&format!("both in the view after {:.1} s", took.as_secs_f64()));
}
