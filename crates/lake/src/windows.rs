//! Window functions that end with the watch.
//!
//! A window function is evaluated for all rows of a partition in one go, and some (a
//! median, the last value that is not null) go through their whole frame for each of them.
//! Nothing outside the function is asked for in between, so the watch is put inside it. The
//! function is exchanged after the plan was optimised: rules know functions by what they are.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{
    AccumulatorArgs, ExpressionArgs, PartitionEvaluatorArgs, StateFieldsArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LimitEffect, LogicalPlan, PartitionEvaluator,
    ReversedUDAF, ReversedUDWF, SetMonotonicity, Signature, WindowFunctionDefinition, WindowUDF,
    WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

use crate::guarded::{constant_bytes, scalar_bytes};
use crate::limits::array_bytes;
use crate::purse::Purse;
use crate::watch::Watch;

/// Results of so few bytes are not counted.
const SMALL_BYTES: usize = 16;
/// Constants of so few bytes may be repeated for every row.
const CONSTANT_BYTES: usize = 4096;

/// The plan with the watch in its window functions.
pub(crate) fn watch_windows(plan: LogicalPlan, watch: &Watch, purse: &Purse) -> Result<LogicalPlan> {
    if matches!(plan, LogicalPlan::Explain(_)) {
        return Ok(plan);
    }
    let constant_bytes = constant_bytes(&plan)?;
    let bounds = &Bounds { watch: watch.clone(), purse: purse.clone(), constant_bytes };
    let watched = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(_) => node.map_expressions(|expr| expr.transform_up(|e| Ok(watched(e, bounds)))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(watched.data)
}

/// What ends a window function, and what it may hold: its results of a partition lie in memory
/// at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bounds {
    watch: Watch,
    purse: Purse,
    /// Of all constants of the plan: a default of `lag` is repeated for each row.
    constant_bytes: usize,
}

impl Bounds {
    /// Takes the bytes of a result that is repeated for `rows`.
    fn charge(&self, result: ScalarValue, rows: usize) -> Result<ScalarValue> {
        let bytes = scalar_bytes(&result);
        if bytes > SMALL_BYTES {
            self.purse.charge(bytes.saturating_mul(rows.max(1)))?;
        }
        Ok(result)
    }

    fn charge_all(&self, rows: usize) -> Result<()> {
        if self.constant_bytes <= CONSTANT_BYTES {
            return Ok(());
        }
        let bytes = self.constant_bytes.saturating_mul(rows) as u64;
        self.purse.expect("a window function", bytes, 0)
    }
}

fn watched(expr: Expr, bounds: &Bounds) -> Transformed<Expr> {
    let Expr::WindowFunction(mut call) = expr else { return Transformed::no(expr) };
    call.fun = match call.fun {
        WindowFunctionDefinition::AggregateUDF(inner) => {
            WindowFunctionDefinition::AggregateUDF(aggregate(&inner, bounds))
        }
        WindowFunctionDefinition::WindowUDF(inner) => {
            WindowFunctionDefinition::WindowUDF(window(&inner, bounds))
        }
    };
    Transformed::yes(Expr::WindowFunction(call))
}

fn aggregate(inner: &AggregateUDF, bounds: &Bounds) -> Arc<AggregateUDF> {
    let function = WatchedAggregate { inner: inner.clone(), bounds: bounds.clone() };
    Arc::new(AggregateUDF::new_from_impl(function))
}

fn window(inner: &WindowUDF, bounds: &Bounds) -> Arc<WindowUDF> {
    let function = WatchedWindow { inner: inner.clone(), bounds: bounds.clone() };
    Arc::new(WindowUDF::new_from_impl(function))
}

/// An aggregate as a window function. What only the optimiser asks for is not passed on.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WatchedAggregate {
    inner: AggregateUDF,
    bounds: Bounds,
}

impl WatchedAggregate {
    fn watched(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(WatchedAccumulator { inner, bounds: self.bounds.clone(), calls: 0, rows: 0 })
    }
}

impl AggregateUDFImpl for WatchedAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().human_display(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.inner().window_function_schema_name(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.inner().display_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.inner().window_function_display_name(params)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arg_types)
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.inner().return_field(arg_fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.inner().is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.watched(self.inner.inner().accumulator(args)?))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.watched(self.inner.inner().create_sliding_accumulator(args)?))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.inner().state_fields(args)
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial_ordering: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let changed = Arc::clone(self.inner.inner()).with_beneficial_ordering(beneficial_ordering)?;
        Ok(changed.map(|inner| {
            let inner = AggregateUDF::new_from_shared_impl(inner);
            Arc::new(Self { inner, bounds: self.bounds.clone() }) as Arc<dyn AggregateUDFImpl>
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.inner().order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.inner().reverse_expr() {
            ReversedUDAF::Reversed(inner) => ReversedUDAF::Reversed(aggregate(&inner, &self.bounds)),
            other => other,
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.inner().is_descending()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.inner().default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.inner().supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.inner().supports_within_group_clause()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

#[derive(Debug)]
struct WatchedAccumulator {
    inner: Box<dyn Accumulator>,
    bounds: Bounds,
    calls: u32,
    /// Rows since the last result. Where they are a whole partition, the result is repeated for
    /// each of them.
    rows: usize,
}

impl Accumulator for WatchedAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.rows += values.first().map_or(0, |column| column.len());
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.bounds.watch.check_often(&mut self.calls)?;
        let rows = std::mem::take(&mut self.rows);
        self.bounds.charge(self.inner.evaluate()?, rows)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// A function that is a window function only.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WatchedWindow {
    inner: WindowUDF,
    bounds: Bounds,
}

impl WindowUDFImpl for WatchedWindow {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn expressions(&self, args: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.inner().expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        let inner = self.inner.inner().partition_evaluator(args)?;
        Ok(Box::new(WatchedEvaluator { inner, bounds: self.bounds.clone(), calls: 0 }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.inner().field(args)
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.inner.inner().sort_options()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arg_types)
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.inner().reverse_expr() {
            ReversedUDWF::Reversed(inner) => ReversedUDWF::Reversed(window(&inner, &self.bounds)),
            other => other,
        }
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.inner().limit_effect(args)
    }
}

#[derive(Debug)]
struct WatchedEvaluator {
    inner: Box<dyn PartitionEvaluator>,
    bounds: Bounds,
    calls: u32,
}

impl PartitionEvaluator for WatchedEvaluator {
    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn get_range(&self, idx: usize, n_rows: usize) -> Result<Range<usize>> {
        self.inner.get_range(idx, n_rows)
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        self.bounds.watch.check()?;
        self.bounds.charge_all(num_rows)?;
        let results = self.inner.evaluate_all(values, num_rows)?;
        self.bounds.purse.charge(array_bytes(&results))?;
        Ok(results)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.bounds.watch.check_often(&mut self.calls)?;
        self.bounds.charge(self.inner.evaluate(values, range)?, 1)
    }

    fn evaluate_all_with_rank(
        &self,
        num_rows: usize,
        ranks_in_partition: &[Range<usize>],
    ) -> Result<ArrayRef> {
        self.bounds.watch.check()?;
        self.inner.evaluate_all_with_rank(num_rows, ranks_in_partition)
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}
