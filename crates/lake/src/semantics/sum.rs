//! `sum` that answers an error where the total leaves its type.
//!
//! Totals are kept in 128 bits. That of whole numbers is BIGINT, as it has always been here
//! (PostgreSQL answers NUMERIC): one beyond 64 bits is an error, whatever the order of the rows.
//! Other types are the engine's own affair.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

/// The type of a total on its way: wide enough for 2^63 rows of 64 bits.
const STATE: DataType = DataType::Decimal128(38, 0);
/// One more than the greatest value of a decimal of 38 digits.
const DECIMAL_END: i128 = 10i128.pow(38);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    engine: Arc<AggregateUDF>,
}

/// The function, to be registered under its own name.
pub(super) fn sum() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Sum { engine: sum_udaf() }))
}

/// Whether totals of this type are kept here.
fn is_own(of: &DataType) -> bool {
    matches!(of, DataType::Int64 | DataType::Decimal128(..))
}

/// The type in which totals go from one operator to the next.
fn state_of(of: &DataType) -> DataType {
    match of {
        DataType::Decimal128(_, scale) => DataType::Decimal128(38, *scale),
        _ => STATE,
    }
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.engine.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.engine.coerce_types(types)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let of = args.return_field.data_type().clone();
        if !is_own(&of) {
            return self.engine.state_fields(args);
        }
        let name = format_state_name(args.name, "sum");
        Ok(vec![Arc::new(match args.is_distinct {
            true => Field::new_list(name, Field::new_list_field(state_of(&of), true), false),
            false => Field::new(name, state_of(&of), true),
        })])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let of = args.return_field.data_type().clone();
        match (is_own(&of), args.is_distinct) {
            (true, true) => Ok(Box::new(DistinctTotal { seen: HashSet::new(), of })),
            (true, false) => Ok(Box::new(Total { sum: 0, rows: 0, of })),
            (false, _) => self.engine.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let of = args.return_field.data_type().clone();
        match is_own(&of) && !args.is_distinct {
            true => Ok(Box::new(Total { sum: 0, rows: 0, of })),
            false => self.engine.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let of = args.return_field.data_type().clone();
        match is_own(&of) {
            true => Ok(Box::new(Totals { sums: Vec::new(), filled: Vec::new(), of })),
            false => self.engine.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// Rows of a column as 128 bits.
fn each(values: &ArrayRef, mut take: impl FnMut(usize, i128) -> Result<()>) -> Result<()> {
    match values.data_type() {
        DataType::Int64 => {
            let values = values.as_primitive::<Int64Type>();
            for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
                take(row, i128::from(values.value(row)))?;
            }
        }
        DataType::Decimal128(..) => {
            let values = values.as_primitive::<Decimal128Type>();
            for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
                take(row, values.value(row))?;
            }
        }
        other => return internal_err!("a total of {other}"),
    }
    Ok(())
}

fn plus(sum: i128, value: i128) -> Result<i128> {
    match sum.checked_add(value) {
        Some(sum) => Ok(sum),
        None => exec_err!("numeric out of range: the sum has more than 38 digits"),
    }
}

/// A total as a value of the function's type.
fn bounded(sum: i128, of: &DataType) -> Result<ScalarValue> {
    match of {
        DataType::Decimal128(precision, scale) => match sum.unsigned_abs() < DECIMAL_END.unsigned_abs() {
            true => Ok(ScalarValue::Decimal128(Some(sum), *precision, *scale)),
            false => exec_err!("numeric out of range: the sum has more than 38 digits"),
        },
        _ => match i64::try_from(sum) {
            Ok(sum) => Ok(ScalarValue::Int64(Some(sum))),
            Err(_) => exec_err!("bigint out of range: the sum is {sum}; sum(x::numeric) holds 38 digits"),
        },
    }
}

fn null_of(of: &DataType) -> Result<ScalarValue> {
    ScalarValue::try_from(of)
}

/// Totals as an array of the type that goes between operators.
fn state(sums: Vec<i128>, filled: &[bool], of: &DataType) -> Result<ArrayRef> {
    let DataType::Decimal128(precision, scale) = state_of(of) else {
        return internal_err!("a state of {of}");
    };
    let array: Decimal128Array =
        sums.into_iter().zip(filled).map(|(sum, filled)| filled.then_some(sum)).collect();
    Ok(Arc::new(array.with_precision_and_scale(precision, scale)?))
}

/// One total; also of a window whose rows leave again.
#[derive(Debug)]
struct Total {
    sum: i128,
    rows: u64,
    of: DataType,
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return internal_err!("sum of nothing") };
        self.rows += (values.len() - values.null_count()) as u64;
        each(values, |_, value| {
            self.sum = plus(self.sum, value)?;
            Ok(())
        })
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return internal_err!("sum of nothing") };
        self.rows -= (values.len() - values.null_count()) as u64;
        each(values, |_, value| {
            self.sum = plus(self.sum, -value)?;
            Ok(())
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = state(vec![self.sum], &[self.rows > 0], &self.of)?;
        Ok(vec![ScalarValue::try_from_array(state.as_ref(), 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.rows == 0 { null_of(&self.of) } else { bounded(self.sum, &self.of) }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The total of different values.
#[derive(Debug)]
struct DistinctTotal {
    seen: HashSet<i128>,
    of: DataType,
}

impl Accumulator for DistinctTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return internal_err!("sum of nothing") };
        each(values, |_, value| {
            self.seen.insert(value);
            Ok(())
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else { return internal_err!("sum of nothing") };
        let states = states.as_list::<i32>();
        for row in (0..states.len()).filter(|row| states.is_valid(*row)) {
            self.update_batch(&[states.value(row)])?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sums: Vec<i128> = self.seen.iter().copied().collect();
        let filled = vec![true; sums.len()];
        let values = state(sums, &filled, &self.of)?;
        let list = datafusion::common::utils::SingleRowListArrayBuilder::new(values).build_list_array();
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.seen.is_empty() {
            return null_of(&self.of);
        }
        let sum = self.seen.iter().try_fold(0, |sum, value| plus(sum, *value))?;
        bounded(sum, &self.of)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.capacity() * size_of::<(i128, u64)>()
    }
}

/// A total for each group.
#[derive(Debug)]
struct Totals {
    sums: Vec<i128>,
    filled: Vec<bool>,
    of: DataType,
}

impl Totals {
    fn take(&mut self, emit_to: EmitTo) -> (Vec<i128>, Vec<bool>) {
        (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.filled))
    }
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        let Some(values) = values.first() else { return internal_err!("sum of nothing") };
        self.sums.resize(total_groups, 0);
        self.filled.resize(total_groups, false);
        each(values, |row, value| {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                let group = groups[row];
                self.sums[group] = plus(self.sums[group], value)?;
                self.filled[group] = true;
            }
            Ok(())
        })
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let of = self.of.clone();
        let (sums, filled) = self.take(emit_to);
        for (sum, filled) in sums.iter().zip(&filled) {
            if *filled {
                bounded(*sum, &of)?;
            }
        }
        match of {
            DataType::Decimal128(precision, scale) => {
                let array: Decimal128Array =
                    sums.into_iter().zip(filled).map(|(sum, filled)| filled.then_some(sum)).collect();
                Ok(Arc::new(array.with_precision_and_scale(precision, scale)?))
            }
            _ => {
                let totals = sums.into_iter().zip(filled);
                let array: Int64Array = totals
                    .map(|(sum, filled)| filled.then_some(sum).and_then(|sum| i64::try_from(sum).ok()))
                    .collect();
                Ok(Arc::new(array))
            }
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let of = self.of.clone();
        let (sums, filled) = self.take(emit_to);
        Ok(vec![state(sums, &filled, &of)?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let Some(values) = values.first() else { return internal_err!("sum of nothing") };
        let (mut sums, mut filled) = (vec![0; values.len()], vec![false; values.len()]);
        each(values, |row, value| {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                (sums[row], filled[row]) = (value, true);
            }
            Ok(())
        })?;
        Ok(vec![state(sums, &filled, &self.of)?])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.filled.capacity()
    }
}
