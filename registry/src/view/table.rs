//! How the objects of a view are printed: the cluster, then what their own server prints of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::names::QualifiedName;
use umbra_apimachinery::table::ColumnDefinition;

use crate::resource::{Object, Row};

/// The column whose values grow while nobody writes them.
const AGE: &str = "Age";

/// The columns of each cluster.
pub(super) type Columns = BTreeMap<String, Arc<[ColumnDefinition]>>;

/// The columns of a Table, and where each cluster's own cells go.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) columns: Vec<ColumnDefinition>,
    /// For each column after the first, which of the cluster's own it is.
    places: BTreeMap<String, Vec<Option<usize>>>,
}

impl Layout {
    /// The cluster, and the union of all clusters' columns in their order. It does not depend on the objects: a watch is
    /// told the columns once and objects of other clusters follow.
    pub(super) fn new(of_clusters: &Columns) -> Self {
        let mut columns = vec![ColumnDefinition::string("Cluster", "The cluster the object is in.")];
        for column in of_clusters.values().flat_map(|columns| columns.iter()) {
            if !columns[1..].iter().any(|known| known.name == column.name) {
                columns.push(column.clone());
            }
        }
        if columns.len() == 1 {
            columns.extend([ColumnDefinition::name(), ColumnDefinition::age()]);
        }
        let places = of_clusters.iter().map(|(cluster, own)| {
            let place = |column: &ColumnDefinition| own.iter().position(|one| one.name == column.name);
            (cluster.clone(), columns[1..].iter().map(place).collect())
        });
        Self {
            places: places.collect(),
            columns,
        }
    }

    /// The row of an object.
    pub(super) fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let placed = object
            .row
            .as_deref()
            .and_then(|row| Some((row, self.places.get(row.cluster())?)));
        let printed = placed.and_then(|(row, places)| self.printed_cells(row, places, now));
        printed.unwrap_or_else(|| own_cells(object, &self.columns, now))
    }

    fn printed_cells(&self, row: &Row, places: &[Option<usize>], now: Timestamp) -> Option<Vec<Value>> {
        let mut printed = Some(row.cells()).filter(|cells| !cells.is_empty())?;
        // Columns of the layout differ in name, so none of the cluster's own goes to two of them.
        let others = self.columns[1..].iter().zip(places).map(|(column, place)| {
            let cell = place
                .and_then(|place| printed.get_mut(place))
                .map(Value::take)
                .unwrap_or_default();
            if column.name == AGE && !cell.is_null() {
                age_cell(row.created(), now).unwrap_or(cell)
            } else {
                cell
            }
        });
        Some(std::iter::once(Value::from(row.cluster())).chain(others).collect())
    }
}

/// What can be said of an object that nobody has printed.
fn own_cells(object: &Object, columns: &[ColumnDefinition], now: Timestamp) -> Vec<Value> {
    let parsed: Value = serde_json::from_slice(&object.json).unwrap_or_default();
    let metadata = &parsed["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let cluster = QualifiedName::parse(name).map_or(Value::Null, |name| name.cluster.into());
    let others = columns.iter().skip(1).map(|column| {
        if column.format == "name" {
            name.into()
        } else if column.name == AGE {
            age_cell(metadata["creationTimestamp"].as_str().unwrap_or_default(), now).unwrap_or_default()
        } else {
            Value::Null
        }
    });
    std::iter::once(cluster).chain(others).collect()
}

fn age_cell(created: &str, now: Timestamp) -> Option<Value> {
    age::parse(created).map(|created| age::human_duration(created, now).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(cluster: &str, cells: Vec<Value>) -> Object {
        let row = Row::new(cluster, "2026-01-01T00:00:00Z", &Value::from(cells).to_string());
        let json = json!({"metadata": {"name": format!("web@{cluster}"), "creationTimestamp": "2026-01-01T00:00:00Z"}});
        Object {
            json: json.to_string().into(),
            row: Some(Arc::new(row)),
        }
    }

    #[test]
    fn each_cluster_prints_under_the_columns_of_all() {
        let column = |name: &str| ColumnDefinition::string(name, "");
        let east: Arc<[ColumnDefinition]> = [ColumnDefinition::name(), column("Ready"), column("Age")].into();
        let west: Arc<[ColumnDefinition]> = [ColumnDefinition::name(), column("Phase"), column("Ready")].into();
        let of_clusters: Columns = [("east".to_owned(), east), ("west".to_owned(), west)].into();
        let layout = Layout::new(&of_clusters);
        let names: Vec<&str> = layout.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["Cluster", "Name", "Ready", "Age", "Phase"]);
        let now = age::parse("2026-01-01T00:01:00Z").unwrap();
        let row = |object: &Object| layout.cells(object, now);
        let east = object("east", vec![json!("web@east"), json!("1/1"), json!("3s")]);
        assert_eq!(
            row(&east),
            [
                json!("east"),
                json!("web@east"),
                json!("1/1"),
                json!("60s"),
                Value::Null
            ]
        );
        let west = object("west", vec![json!("web@west"), json!("Up"), json!("0/1")]);
        assert_eq!(
            row(&west),
            [json!("west"), json!("web@west"), json!("0/1"), Value::Null, json!("Up")]
        );
        let bare = object("east", Vec::new());
        assert_eq!(
            row(&bare),
            [json!("east"), json!("web@east"), Value::Null, json!("60s"), Value::Null]
        );
    }

    #[test]
    fn without_columns_name_and_age_are_shown() {
        let names: Vec<String> = Layout::new(&Columns::new())
            .columns
            .into_iter()
            .map(|column| column.name)
            .collect();
        assert_eq!(names, ["Cluster", "Name", "Age"]);
    }
}
