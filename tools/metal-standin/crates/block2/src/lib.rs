//! What candle and this project use of block2: a closure that can be handed on by its address.

use std::ops::Deref;
use std::sync::Arc;

pub struct Block<F: ?Sized>(Arc<F>);
pub type DynBlock<F> = Block<F>;
pub struct RcBlock<F: ?Sized>(Arc<Block<F>>);

impl<F: ?Sized> Block<F> {
    pub fn standin(&self) -> Arc<F> {
        Arc::clone(&self.0)
    }
}

/// A closure of one or two arguments.
pub trait IntoBlock<Arguments> {
    type Dyn: ?Sized;
    fn into_arc(self) -> Arc<Self::Dyn>;
}
impl<A: 'static, F: Fn(A) + 'static> IntoBlock<(A,)> for F {
    type Dyn = dyn Fn(A);
    fn into_arc(self) -> Arc<Self::Dyn> {
        Arc::new(self)
    }
}
impl<A: 'static, B: 'static, F: Fn(A, B) + 'static> IntoBlock<(A, B)> for F {
    type Dyn = dyn Fn(A, B);
    fn into_arc(self) -> Arc<Self::Dyn> {
        Arc::new(self)
    }
}

impl<F: ?Sized> RcBlock<F> {
    pub fn new<Arguments>(closure: impl IntoBlock<Arguments, Dyn = F>) -> Self {
        Self(Arc::new(Block(closure.into_arc())))
    }
    pub fn as_ptr(this: &Self) -> *mut Block<F> {
        Arc::as_ptr(&this.0).cast_mut()
    }
}
impl<F: ?Sized> Deref for RcBlock<F> {
    type Target = Block<F>;
    fn deref(&self) -> &Block<F> {
        &self.0
    }
}
