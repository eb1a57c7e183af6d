//! What a run found: numbers by scenario and chain, and their ratios.

use serde::{Deserialize, Serialize};

/// Median and range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The middle one.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

/// `None` when there are no values.
pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let upper = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[upper] } else { (sorted[upper - 1] + sorted[upper]) / 2.0 };
    Some(Spread { median, min, max })
}

/// One chain in one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The scenario's name.
    pub(crate) scenario: String,
    /// The chain's name.
    pub(crate) chain: String,
    /// What the values count.
    pub(crate) unit: String,
    /// One for each round; `None` where the load failed.
    pub(crate) values: Vec<Option<f64>>,
    /// Largest share of the machine that something else used meanwhile, 0 to 1.
    pub(crate) others: f64,
    /// Why a load failed; the last one.
    pub(crate) failure: Option<String>,
}

impl Row {
    /// Its values in short.
    pub(crate) fn spread(&self) -> Option<Spread> {
        spread(&self.values.iter().copied().flatten().collect::<Vec<_>>())
    }

    /// Ratios to `other`, round by round.
    pub(crate) fn ratio(&self, other: &Self) -> Option<Spread> {
        let pairs = self.values.iter().zip(&other.values);
        let ratios = pairs.filter_map(|(a, b)| Some((*a)? / (*b)?)).filter(|r| r.is_finite());
        spread(&ratios.collect::<Vec<_>>())
    }
}

/// All that a run found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Of the machine: kernel, CPU, number of CPUs.
    pub(crate) machine: String,
    /// Cipher suite of all chains.
    pub(crate) suite: String,
    /// Chains that were left out, and why.
    pub(crate) skipped: Vec<String>,
    /// The numbers.
    pub(crate) rows: Vec<Row>,
}

impl Results {
    /// The row of a chain in a scenario.
    pub(crate) fn row(&self, scenario: &str, chain: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.scenario == scenario && row.chain == chain)
    }

    /// Adds a value; `Err` is why there is none.
    pub(crate) fn add(
        &mut self,
        scenario: &str,
        chain: &str,
        unit: &str,
        value: Result<f64, String>,
        others: f64,
    ) {
        let at = self.rows.iter().position(|row| row.scenario == scenario && row.chain == chain);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                scenario: scenario.to_owned(),
                chain: chain.to_owned(),
                unit: unit.to_owned(),
                values: Vec::new(),
                others: 0.0,
                failure: None,
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.others = row.others.max(others);
        match value {
            Ok(value) => row.values.push(Some(value)),
            Err(why) => {
                row.values.push(None);
                row.failure = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut results = Results::default();
        for (a, b) in [(Ok(1.0), 2.0), (Err("broken".to_owned()), 1.0), (Ok(3.0), 4.0), (Ok(8.0), 8.0)] {
            results.add("s", "a", "ms", a, 0.1);
            results.add("s", "b", "ms", Ok(b), 0.0);
        }
        let (a, b) = (results.row("s", "a").unwrap(), results.row("s", "b").unwrap());
        assert_eq!(a.ratio(b), Some(Spread { median: 0.75, min: 0.5, max: 1.0 }));
        assert_eq!(a.failure.as_deref(), Some("broken"));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[1.0, 2.0]).unwrap().median, 1.5);
    }
}
