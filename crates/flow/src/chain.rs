//! The steps of a pipeline in a row, from decoded batch to the rows of the sink.
//!
//! A key counts as seen only when its row has come through every step. So the chain runs a
//! batch to the end, looks at which rows failed, and then remembers the keys of the others.
//! Rows that repeated a row which failed take its place and go through again.

use std::collections::VecDeque;

use ahash::{AHashMap, AHashSet};
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use levada_config::model::{Deduplicate, Enrich, Step as StepConfig};
use levada_schema::TENANT_ID;

use crate::counts::StepCounts;
use crate::rows::{self, DERIVED};
use crate::shares::Tally;
use crate::steps::deduplicate::DeduplicateStep;
use crate::steps::quality::QualityStep;
use crate::steps::{BuildError, Fault, StepError, Transform};
use crate::window::{Key, Window};

/// A transform and the columns after it, the hidden one included.
pub type Built = (Box<dyn Transform>, SchemaRef);

/// Builds the steps that need more than their configuration.
pub trait StepMaker {
    /// # Errors
    /// [`BuildError`] when the step cannot run on these columns.
    fn enrich(&self, config: &Enrich, input: &Schema) -> Result<Built, BuildError>;
    /// # Errors
    /// As [`StepMaker::enrich`].
    fn sql(&self, query: &str, input: SchemaRef) -> Result<Built, BuildError>;
}

enum Step {
    Deduplicate {
        step: DeduplicateStep,
        window: usize,
    },
    /// With the window of each `unique` rule.
    Quality {
        step: QualityStep,
        windows: AHashMap<usize, usize>,
    },
    Transform(Box<dyn Transform>),
}

/// A window under a name that does not change when other steps do.
struct NamedWindow {
    name: String,
    window: Window,
}

/// The steps and their state.
pub struct Chain {
    steps: Vec<Step>,
    /// What each is called; no two alike.
    names: Vec<String>,
    windows: Vec<NamedWindow>,
    /// Without the hidden column.
    output: SchemaRef,
}

/// A row that failed. `derived` holds it as JSON, with its tenant, where no record does.
#[derive(Debug, Clone)]
pub struct Failed {
    pub fault: Fault,
    pub derived: Option<(Option<String>, Vec<u8>)>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Processed {
    /// Rows for the sink, without the hidden column.
    pub batches: Vec<RecordBatch>,
    pub failed: Vec<Failed>,
    pub duplicates: u64,
    /// Whose the duplicates are.
    pub dropped: Tally,
    /// What each step did, in their order.
    pub steps: Vec<StepCounts>,
}

/// A row that stands for its key until the end of the pass.
struct Claim {
    window: usize,
    row: u32,
    key: Key,
}

/// A way from a step to the end that is still to be gone.
struct Pass {
    from: usize,
    batch: RecordBatch,
    /// The rows reached the step before and were held back there.
    again: bool,
}

/// Rows held back because they repeat one of the same batch.
struct Held {
    step: usize,
    input: RecordBatch,
    rows: Vec<(usize, Key)>,
}

impl Chain {
    /// Builds the steps over the decoder's columns.
    ///
    /// # Errors
    /// [`BuildError`] that names the step.
    pub fn build(steps: &[StepConfig], decoded: &Schema, maker: &dyn StepMaker) -> Result<Self, BuildError> {
        let mut schema = rows::with_row_field(decoded);
        let mut chain = Self {
            steps: Vec::with_capacity(steps.len()),
            names: Vec::with_capacity(steps.len()),
            windows: Vec::new(),
            output: schema.clone(),
        };
        let bounds =
            steps.iter().find_map(|s| if let StepConfig::Deduplicate(d) = s { Some(d) } else { None });
        for (at, config) in steps.iter().enumerate() {
            let wrong = |error: BuildError| error.of_step(at);
            let step = match config {
                StepConfig::Deduplicate(d) => {
                    let key: Vec<_> = d.key.iter().map(ToString::to_string).collect();
                    let window = chain.add_window(format!("deduplicate:{}", key.join(",")), Some(d));
                    Step::Deduplicate { step: DeduplicateStep::new(d, &schema).map_err(wrong)?, window }
                }
                StepConfig::Quality { rules } => {
                    let step = QualityStep::new(rules, &schema).map_err(wrong)?;
                    let unique: Vec<_> = step.unique_rules().map(|(at, f)| (at, f.to_owned())).collect();
                    let windows = unique
                        .into_iter()
                        .map(|(at, field)| (at, chain.add_window(format!("unique:{field}"), bounds)));
                    Step::Quality { windows: windows.collect(), step }
                }
                StepConfig::Enrich(enrich) => {
                    let (step, after) = maker.enrich(enrich, &schema).map_err(wrong)?;
                    schema = after;
                    Step::Transform(step)
                }
                StepConfig::Sql { query } => {
                    let (step, after) = maker.sql(query, schema).map_err(wrong)?;
                    schema = after;
                    Step::Transform(step)
                }
            };
            chain.steps.push(step);
            let name = unlike(step_name(config), chain.names.iter().map(String::as_str));
            chain.names.push(name);
        }
        chain.output = rows::without_row_field(&schema);
        Ok(chain)
    }

    /// Without a deduplication step to say otherwise, a day and a million keys.
    fn add_window(&mut self, name: String, bounds: Option<&Deduplicate>) -> usize {
        let (span, keys) =
            bounds.map_or((std::time::Duration::from_secs(86_400), 1_000_000), |d| (d.window, d.max_keys));
        let name = unlike(name, self.windows.iter().map(|w| w.name.as_str()));
        self.windows.push(NamedWindow { name, window: Window::new(span, keys) });
        self.windows.len() - 1
    }

    /// What the steps are called, in their order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The columns of the sink.
    pub fn output(&self) -> &SchemaRef {
        &self.output
    }

    pub fn has_windows(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Bytes that the windows hold.
    pub fn window_bytes(&self) -> usize {
        self.windows.iter().map(|w| w.window.bytes()).sum()
    }

    /// What the windows learnt since the last call, by name; windows that learnt nothing are
    /// left out.
    pub fn take_deltas(&mut self) -> Vec<(String, Vec<u8>)> {
        let deltas = self.windows.iter_mut().map(|w| (w.name.clone(), w.window.take_delta()));
        deltas.filter(|(_, delta)| !delta.is_empty()).collect()
    }

    /// All that the windows hold, by name.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        self.windows.iter().map(|w| (w.name.clone(), w.window.snapshot())).collect()
    }

    /// Gives a window back what a snapshot or delta held; state of a step that is gone is
    /// ignored. False when the bytes are damaged.
    #[must_use]
    pub fn restore(&mut self, name: &str, encoded: &[u8]) -> bool {
        let window = self.windows.iter_mut().find(|w| w.name == name);
        window.is_none_or(|w| w.window.restore(encoded).is_some())
    }

    /// Takes a decoded batch to its end. `rows` gives each row's record, `times_ms` each
    /// record's arrival.
    ///
    /// # Errors
    /// [`StepError`] for a defect; nothing of the batch is remembered then.
    pub async fn process(
        &mut self,
        batch: &RecordBatch,
        rows: Vec<u32>,
        times_ms: &[i64],
        now_ms: i64,
    ) -> Result<Processed, StepError> {
        let latest = times_ms.iter().copied().max().unwrap_or(now_ms);
        self.windows.iter_mut().for_each(|w| w.window.expire(latest));
        let steps = vec![StepCounts::default(); self.steps.len()];
        let mut done = Processed { steps, ..Processed::default() };
        let mut passes = VecDeque::from([Pass { from: 0, batch: rows::attach(batch, rows)?, again: false }]);
        while let Some(pass) = passes.pop_front() {
            if pass.batch.num_rows() > 0 {
                self.pass(pass, times_ms, now_ms, &mut done, &mut passes).await?;
            }
        }
        Ok(done)
    }

    /// One run from a step to the end.
    async fn pass(
        &mut self,
        Pass { from, mut batch, again }: Pass,
        times_ms: &[i64],
        now_ms: i64,
        done: &mut Processed,
        passes: &mut VecDeque<Pass>,
    ) -> Result<(), StepError> {
        let mut claims = Vec::new();
        let mut held = Vec::new();
        let first_failure = done.failed.len();
        for at in from..self.steps.len() {
            if !(again && at == from) {
                done.steps[at].rows_in += batch.num_rows() as u64;
            }
            let (next, faults) = match &self.steps[at] {
                Step::Deduplicate { step, window } => {
                    let split = step.split(&batch, &self.windows[*window].window)?;
                    done.drop_rows(at, &batch, &split.duplicates);
                    claims.extend(split.winners.into_iter().map(|(row, key)| Claim {
                        window: *window,
                        row,
                        key,
                    }));
                    if !split.held.is_empty() {
                        held.push(Held { step: at, input: batch.clone(), rows: split.held });
                    }
                    (split.batch, Vec::new())
                }
                Step::Quality { step, windows } => {
                    let window = |rule| windows.get(&rule).map(|w| &self.windows[*w].window);
                    let checked = step.run(&batch, now_ms, window)?;
                    claims.extend(checked.claims.into_iter().filter_map(|(rule, row, key)| {
                        windows.get(&rule).map(|window| Claim { window: *window, row, key })
                    }));
                    (checked.batch, checked.faults)
                }
                Step::Transform(step) => {
                    let passed = step.run(batch.clone()).await?;
                    (passed.batch, passed.faults)
                }
            };
            done.steps[at].dead += faults.len() as u64;
            done.steps[at].rows_out += next.num_rows() as u64;
            done.failed
                .extend(faults.into_iter().map(|fault| Failed { derived: derived(&batch, &fault), fault }));
            batch = next;
            if batch.num_rows() == 0 {
                break;
            }
        }
        let failed: AHashSet<u32> = done.failed[first_failure..].iter().map(|f| f.fault.row).collect();
        let released = self.settle(claims, &failed, times_ms);
        for Held { step, input, rows } in held {
            let (again, dropped): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|(_, key)| released.contains(key));
            let dropped: Vec<usize> = dropped.into_iter().map(|(at, _)| at).collect();
            done.drop_rows(step, &input, &dropped);
            if !again.is_empty() {
                let positions: UInt64Array = again.iter().map(|(at, _)| *at as u64).collect();
                let batch = take_record_batch(&input, &positions)?;
                passes.push_back(Pass { from: step, batch, again: true });
            }
        }
        if batch.num_rows() > 0 {
            done.batches.push(rows::detach(&batch)?);
        }
        Ok(())
    }

    /// Remembers the keys of rows that came through; hands back those of rows that did not.
    fn settle(&mut self, claims: Vec<Claim>, failed: &AHashSet<u32>, times_ms: &[i64]) -> AHashSet<Key> {
        let mut released = AHashSet::new();
        for Claim { window, row, key } in claims {
            if failed.contains(&row) {
                released.insert(key);
            } else {
                let at_ms = times_ms.get(row as usize).or(times_ms.last()).copied().unwrap_or_default();
                self.windows[window].window.insert(key, at_ms);
            }
        }
        released
    }
}

impl Processed {
    /// Counts rows of a batch that a step took for duplicates.
    fn drop_rows(&mut self, step: usize, batch: &RecordBatch, rows: &[usize]) {
        self.duplicates += rows.len() as u64;
        self.steps[step].dropped += rows.len() as u64;
        self.dropped.add(batch, rows.iter().copied());
    }
}

/// As dead letters call a step.
fn step_name(step: &StepConfig) -> String {
    match step {
        StepConfig::Deduplicate(_) => "deduplicate".to_owned(),
        StepConfig::Quality { .. } => "quality".to_owned(),
        StepConfig::Enrich(enrich) => format!("enrich:{}", enrich.name),
        StepConfig::Sql { .. } => "sql".to_owned(),
    }
}

/// The name, with a number where others have it already.
fn unlike<'a>(name: String, others: impl Iterator<Item = &'a str>) -> String {
    let same = others.filter(|other| other.split('#').next() == Some(&name)).count();
    if same == 0 { name } else { format!("{name}#{same}") }
}

/// A failed row that no record stands for, as JSON with its tenant.
fn derived(batch: &RecordBatch, fault: &Fault) -> Option<(Option<String>, Vec<u8>)> {
    if fault.row < DERIVED {
        return None;
    }
    let at = rows::numbers(batch)?.values().iter().position(|row| *row == fault.row)?;
    let tenant = batch.column_by_name(TENANT_ID).and_then(|c| rows::text(c, at)).map(|t| t.into_owned());
    let mut map = serde_json::Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if field.name() != rows::ROW {
            let value = rows::text(column, at).map_or(serde_json::Value::Null, |t| t.into_owned().into());
            map.insert(field.name().clone(), value);
        }
    }
    Some((tenant, serde_json::to_vec(&map).unwrap_or_default()))
}
