//! The parts of a network in the order of its forward pass, each in memory when its turn comes.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::{Residency, Result, Weights};

type Build<B> = dyn Fn(usize, &Weights) -> Result<B> + Send + Sync;

/// An ordered list of blocks, each made from a scope of a checkpoint.
///
/// A forward pass is a plain loop, which does not know where a block was before its turn or will be after:
///
/// ```ignore
/// for block in self.blocks.pass()? {
///     x = block?.forward(&x, &conditioning)?;
/// }
/// ```
pub struct Blocks<B> {
    scopes: Vec<Weights>,
    build: Box<Build<B>>,
    kept: Vec<OnceLock<Arc<B>>>,
}

impl<B> Blocks<B> {
    /// Blocks that `build` makes, the `i`-th from `scopes[i]`. Nothing is read yet. `build` must depend on
    /// nothing but its arguments: it may run again for every pass, and on another thread.
    pub fn new(
        scopes: impl IntoIterator<Item = Weights>,
        build: impl Fn(usize, &Weights) -> Result<B> + Send + Sync + 'static,
    ) -> Self {
        let scopes: Vec<Weights> = scopes.into_iter().collect();
        let kept = scopes.iter().map(|_| OnceLock::new()).collect();
        Self {
            scopes,
            build: Box::new(build),
            kept,
        }
    }

    /// A single block, for a part of a network that has no like.
    pub fn single(scope: Weights, build: impl Fn(&Weights) -> Result<B> + Send + Sync + 'static) -> Self {
        Self::new([scope], move |_, weights| build(weights))
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.scopes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }

    /// Reads every block that is to stay in memory, so that the first pass finds it there.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn load(&self) -> Result<()> {
        for index in 0..self.len() {
            if self.residency(index) == Residency::Resident {
                self.block(index)?;
            }
        }
        Ok(())
    }

    /// One walk over the blocks in order.
    ///
    /// # Errors
    /// The walk cannot begin: what reads ahead of it could not be started.
    pub fn pass(&self) -> Result<Pass<'_, B>> {
        Ok(Pass {
            blocks: self,
            next: 0,
        })
    }

    /// The block at `index`, for parts of a network that are wanted out of order.
    ///
    /// # Errors
    /// It cannot be read.
    ///
    /// # Panics
    /// There is no block at `index`.
    pub fn block(&self, index: usize) -> Result<Arc<B>> {
        if let Some(block) = self.kept[index].get() {
            return Ok(block.clone());
        }
        let block = Arc::new((self.build)(index, &self.scopes[index])?);
        Ok(match self.residency(index) {
            Residency::Resident => self.kept[index].get_or_init(|| block).clone(),
            Residency::Streamed => block,
        })
    }

    fn residency(&self, index: usize) -> Residency {
        self.scopes[index].holding().residency
    }
}

impl<B> fmt::Debug for Blocks<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resident = self.kept.iter().filter(|block| block.get().is_some()).count();
        write!(formatter, "Blocks({} of {} resident)", resident, self.len())
    }
}

/// One walk over the blocks of a network, in order.
#[derive(Debug)]
pub struct Pass<'a, B> {
    blocks: &'a Blocks<B>,
    next: usize,
}

impl<B> Iterator for Pass<'_, B> {
    type Item = Result<Arc<B>>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        (index < self.blocks.len()).then(|| {
            self.next += 1;
            self.blocks.block(index)
        })
    }
}
