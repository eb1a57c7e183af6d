//! The table and the JSON.

use serde_json::json;

/// One measured value, with its bar if it has one.
pub(crate) struct Bar {
    what: String,
    unit: &'static str,
    value: f64,
    bar: Option<(&'static str, f64)>,
}

impl Bar {
    pub(crate) fn at_most(what: &str, unit: &'static str, limit: f64, value: f64) -> Self {
        Self { what: what.to_owned(), unit, value, bar: Some(("<=", limit)) }
    }

    pub(crate) fn at_least(what: &str, unit: &'static str, limit: f64, value: f64) -> Self {
        Self { what: what.to_owned(), unit, value, bar: Some((">=", limit)) }
    }

    fn holds(&self) -> Option<bool> {
        self.bar.map(|(sign, limit)| if sign == "<=" { self.value <= limit } else { self.value >= limit })
    }
}

/// All rows.
#[derive(Default)]
pub(crate) struct Report(Vec<Bar>);

impl Report {
    pub(crate) fn add(&mut self, bar: Bar) {
        eprintln!("  {}: {:.2} {}", bar.what, bar.value, bar.unit);
        self.0.push(bar);
    }

    /// A value without a bar.
    pub(crate) fn note(&mut self, what: &str, unit: &'static str, value: f64) {
        self.add(Bar { what: what.to_owned(), unit, value, bar: None });
    }

    pub(crate) fn print(&self) {
        println!("{:<58} {:>12} {:>12}", "WHAT", "MEASURED", "BAR");
        for row in &self.0 {
            let bar = row.bar.map(|(sign, limit)| format!("{sign} {limit}")).unwrap_or_default();
            let verdict = match row.holds() {
                Some(true) => "ok",
                Some(false) => "MISSED",
                None => "",
            };
            println!("{:<58} {:>12} {bar:>12} {verdict}", row.what, format!("{:.2} {}", row.value, row.unit));
        }
    }

    pub(crate) fn json(&self) -> String {
        let row = |row: &Bar| {
            let bar = row.bar.map(|(sign, limit)| json!({"sign": sign, "limit": limit}));
            json!({"what": row.what, "unit": row.unit, "value": row.value, "bar": bar, "holds": row.holds()})
        };
        json!(self.0.iter().map(row).collect::<Vec<_>>()).to_string()
    }
}
