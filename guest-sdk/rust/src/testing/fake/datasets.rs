//! Data sets in memory. Those that a test has put there are not the plugin's own.

use super::{Error, Result, missing, with};
use crate::datasets::{Dataset, Description, Page};

/// A data set and its rows.
pub(crate) type DatasetFake = (Dataset, Vec<String>);

/// Most text of a page in bytes, but for one row.
const PAGE_BYTES: usize = 1 << 20;

fn granted(name: &str) -> bool {
    with(|s| s.datasets_granted.as_ref().is_none_or(|g| g.contains(name)))
}

fn find(name: &str) -> Result<DatasetFake> {
    if !granted(name) {
        return Err(Error::Denied(format!("datasets: {name}")));
    }
    with(|s| s.datasets.get(name).cloned()).ok_or_else(|| missing("data set", name))
}

fn own(name: &str) -> Result<DatasetFake> {
    let found = find(name)?;
    if found.0.changeable {
        Ok(found)
    } else {
        Err(Error::Denied(format!("datasets: {name}, which the component has not made")))
    }
}

fn keep((mut dataset, rows): DatasetFake) -> Result<Dataset> {
    if rows.is_empty() {
        return Err(Error::Invalid("rows: holds no row".into()));
    }
    for row in &rows {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(row)?;
    }
    dataset.bytes = rows.iter().map(|row| row.len() as u64 + 1).sum();
    with(|s| s.datasets.insert(dataset.description.name.clone(), (dataset.clone(), rows)));
    Ok(dataset)
}

pub fn list(after: Option<&str>, limit: u32) -> Result<Vec<Dataset>> {
    let all = with(|s| s.datasets.values().map(|(dataset, _)| dataset.clone()).collect::<Vec<_>>());
    let name = |d: &Dataset| d.description.name.clone();
    let listed = all.into_iter().filter(|d| granted(&name(d)) && after.is_none_or(|a| *name(d) > *a));
    Ok(listed.take(limit as usize).collect())
}

pub fn get(name: &str) -> Result<Dataset> {
    Ok(find(name)?.0)
}

/// Here a position is the number of a row.
pub fn read(name: &str, position: u64, limit: u32) -> Result<Page> {
    if !(1..=1000).contains(&limit) {
        return Err(Error::Invalid("limit: 1 to 1000".into()));
    }
    let (_, rows) = find(name)?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    for row in rows.iter().skip(position as usize) {
        bytes += row.len();
        if page.len() == limit as usize || (bytes > PAGE_BYTES && !page.is_empty()) {
            let next = Some(position + page.len() as u64);
            return Ok(Page { rows: page, next });
        }
        page.push(row.clone());
    }
    Ok(Page { rows: page, next: None })
}

pub fn create(description: &Description, rows: &[String]) -> Result<Dataset> {
    let name = &description.name;
    match find(name) {
        Ok(_) => Err(Error::Conflict(format!("data set `{name}` exists already"))),
        Err(Error::NotFound(_)) => {
            let created_at = super::system::now();
            let dataset = Dataset { description: description.clone(), bytes: 0, created_at, changeable: true };
            keep((dataset, rows.to_vec()))
        }
        Err(e) => Err(e),
    }
}

pub fn append(name: &str, rows: &[String]) -> Result<Dataset> {
    let (dataset, mut all) = own(name)?;
    if rows.is_empty() {
        return Err(Error::Invalid("rows: holds no row".into()));
    }
    all.extend_from_slice(rows);
    keep((dataset, all))
}

pub fn delete(name: &str) -> Result<()> {
    own(name)?;
    with(|s| s.datasets.remove(name));
    Ok(())
}
