//! Choosing the plan for one set of input shapes.
//!
//! The network is lowered once; every variant of it (which runs of layers become bands, `fuse`) is priced on one thread
//! under the budget, and the quickest that fits is kept. On one thread, because that alone decides which sums are formed:
//! more threads then only share that work out (`planner::keep_sums`). One variant exists at a time, so planning needs little
//! memory itself. Time grows with variants x layers x algorithms: 1 to 80 ms under a budget, one variant with unlimited memory.

use super::{Compiled, MemoryBudget, Resources, Session};
use crate::cost;
use crate::error::{Error, Result};
use crate::exec::StepTime;
use crate::fuse::{self, Variants};
use crate::lower::lower;
use crate::plan::{self, Plan};
use crate::planner::{self, Fixed, Unit};
use crate::program::Program;
use crate::shape::{self, Dims};
use dcz_format::graph::Network;

/// A program with its choice of algorithms for one thread.
#[derive(Debug)]
struct Way {
    /// What this way may use: the caller's budget, or for the smallest one what the way needs itself.
    budget: Option<u64>,
    /// Predicted, on one thread.
    time: f64,
    compiled: Compiled,
    single: Vec<Unit>,
    choice: Vec<usize>,
}

/// The quickest way so far, and the fewest bytes of any.
#[derive(Debug)]
struct Best {
    way: Option<Way>,
    least: u64,
}

struct Chooser<'a> {
    session: &'a Session,
    network: &'a Network,
    resources: &'a Resources,
    inputs: &'a [Dims],
    outputs: Vec<Dims>,
}

impl Session {
    /// The plan for these inputs and the bytes it was chosen under. The choice looks at this plan alone: what else is in
    /// the cache must not change a result.
    pub(super) fn choose(&self, inputs: Vec<Dims>) -> Result<(Compiled, Option<u64>)> {
        let network = self.network();
        let shapes = shape::infer(network, &inputs)?;
        let outputs = network.outputs.iter();
        let chooser = Chooser {
            session: self,
            network,
            resources: self.resources()?,
            inputs: &inputs,
            outputs: outputs
                .map(|o| shapes[o.tensor.0 as usize].clone())
                .collect(),
        };
        let way = chooser.quickest()?;
        let budget = way.budget;
        Ok((chooser.finish(way)?, budget))
    }
}

impl Chooser<'_> {
    fn units(&self, program: &Program, threads: usize) -> Vec<Unit> {
        let max_error = self.session.options.max_relative_error;
        planner::units(
            program,
            self.network,
            &self.resources.layers,
            max_error,
            threads,
            cost::table(self.session.isa),
        )
    }

    fn describe(&self, program: &Program) -> Plan {
        let (isa, team) = (self.session.isa, self.session.team.size());
        let outputs = self.outputs.clone();
        Plan::describe(self.network, program, isa, team, self.inputs, outputs)
    }

    fn compiled(&self, program: Program) -> Compiled {
        Compiled {
            inputs: self.inputs.to_vec(),
            times: vec![StepTime::default(); program.steps.len()],
            plan: self.describe(&program),
            program,
            residents: Vec::new(),
            used: self.session.clock,
            timed_runs: 0,
        }
    }

    fn fixed(&self, compiled: &Compiled) -> Result<Fixed> {
        let fixed = self.session.fixed(compiled.heap_bytes());
        fixed.ok_or_else(|| Error::internal("resources"))
    }

    /// The quickest way to run the network on one thread within the budget.
    fn quickest(&self) -> Result<Way> {
        let options = &self.session.options;
        let spans = &self.resources.spans;
        let program = lower(self.network, self.inputs, spans, options.input_by_rows)?;
        let mut best = Best {
            way: None,
            least: u64::MAX,
        };
        if options.memory_budget == MemoryBudget::Max && !fuse::is_far(&program) {
            self.consider(program, &mut best)?;
        } else {
            // One after the other, for the memory that planning takes.
            let only_far = options.memory_budget == MemoryBudget::Max;
            let variants = Variants::new(&program, self.network, only_far);
            variants
                .programs()
                .try_for_each(|program| self.consider(program, &mut best))?;
        }
        best.way.ok_or_else(|| match options.memory_budget {
            MemoryBudget::Bytes(bytes) => planner::too_small(bytes, best.least),
            _ => Error::internal("a layer without algorithm"),
        })
    }

    fn consider(&self, program: Program, best: &mut Best) -> Result<()> {
        let compiled = self.compiled(program);
        let single = self.units(&compiled.program, 1);
        let arena = compiled.program.arena;
        let base = self.fixed(&compiled)?.memory(arena, 0, 0, 1).total;
        let own = base.saturating_add(planner::least(&single));
        best.least = best.least.min(own);
        let budget = match self.session.options.memory_budget {
            MemoryBudget::Bytes(bytes) => Some(bytes),
            MemoryBudget::Min => Some(own),
            MemoryBudget::Max => None,
        };
        let smaller = |way: &Way| budget > way.budget;
        if budget.is_some_and(|b| own > b) || best.way.as_ref().is_some_and(smaller) {
            return Ok(());
        }
        let Some(choice) = planner::select(&single, budget.map(|b| b - base)) else {
            return Ok(());
        };
        let time = planner::time(&single, &choice, 1);
        let quicker = |way: &Way| (budget, time) < (way.budget, way.time);
        if best.way.as_ref().is_none_or(quicker) {
            best.way = Some(Way {
                budget,
                time,
                compiled,
                single,
                choice,
            });
        }
        Ok(())
    }

    /// Shares a way out to threads and places everything.
    fn finish(&self, way: Way) -> Result<Compiled> {
        let budget = way.budget;
        let alone = self.fixed(&way.compiled)?;
        let (mut compiled, most) = self.share(way, &alone);
        let resident = planner::resident_bytes(&compiled.program);
        planner::assign_threads(&mut compiled.program, self.network, most);
        let memory = |program: &Program, threads| {
            let tail = planner::tail(program, self.network, threads);
            alone.memory(program.arena, tail, resident, threads)
        };
        fuse::drop_banks(&mut compiled.program);
        // Other places for buffers leave other holes for scratch.
        let mut again = compiled.program.clone();
        again.place();
        if memory(&again, most).total < memory(&compiled.program, most).total {
            compiled.program = again;
        }
        let threads = planner::fit(most, budget, &|threads| memory(&compiled.program, threads));
        planner::assign_threads(&mut compiled.program, self.network, threads);
        planner::assign_scratch(&mut compiled.program, self.network, threads);
        compiled.plan = self.describe(&compiled.program);
        compiled.plan.threads = threads;
        compiled.plan.numeric_id = plan::numeric_id(
            self.network,
            &compiled.program,
            self.session.isa,
            self.inputs,
        );
        Ok(compiled)
    }

    /// Applies the choice for the number of threads that is predicted to be quickest; answers that number too. The sums
    /// stay those of one thread.
    fn share(&self, way: Way, alone: &Fixed) -> (Compiled, usize) {
        let Way {
            budget,
            mut compiled,
            single,
            choice,
            ..
        } = way;
        let arena = compiled.program.arena;
        let select = |units: &[Unit], threads: usize| {
            let base = alone.memory(arena, 0, 0, threads).total;
            match budget {
                None => planner::select(units, None),
                Some(budget) => planner::select(units, Some(budget.checked_sub(base)?)),
            }
        };
        let mut best = (planner::time(&single, &choice, 1), 1, None);
        for threads in 2..=self.session.team.size() {
            let mut more = self.units(&compiled.program, threads);
            planner::keep_sums(&mut more, &single, &choice);
            if let Some(chosen) = select(&more, threads) {
                let time = planner::time(&more, &chosen, threads);
                if time < best.0 {
                    best = (time, threads, Some((more, chosen)));
                }
            }
        }
        let (_, threads, shared) = best;
        let (units, choice) = shared.unwrap_or((single, choice));
        planner::apply(&mut compiled.program, &units, &choice);
        (compiled, threads)
    }
}
