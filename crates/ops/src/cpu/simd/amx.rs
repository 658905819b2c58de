//! The matrix unit of Intel CPUs: AMX with products of bf16.
//!
//! "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18, describes the tiles and their
//! detection, volume 2 the instructions. Rust has no stable intrinsics for them; no compiler uses the tiles on
//! its own.

use std::arch::asm;
use std::mem::offset_of;

use super::tiles::{SIDE, TILE, TileProduct};

/// Bytes of a row of a tile.
const ROW: usize = 4 * SIDE;

/// Whether the CPU has the instructions, and the operating system lets this process use them.
pub(super) fn is_usable() -> bool {
    has_instructions() && is_permitted()
}

fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const XSAVE_IN_USE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let features = AMX_BF16 | AMX_TILE;
    if __cpuid(0).eax < 7
        || __cpuid(1).ecx & XSAVE_IN_USE == 0
        || __cpuid_count(7, 0).edx & features != features
    {
        return false;
    }
    // XCR0 says which state the operating system saves: bit 17 is that of the configuration, bit 18 that of tiles.
    const TILE_STATE: u32 = 0b11 << 17;
    let state: u32;
    // SAFETY: the operating system has turned on XSAVE, and with it this instruction, which only reads.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") state, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    state & TILE_STATE == TILE_STATE
}

/// Linux lets a process use the tiles once it has asked: a thread that does then has a larger state to save. See
/// `Documentation/arch/x86/xstate.rst` of Linux.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: the call takes two numbers, and changes nothing but this permission.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems have other ways, which nobody has tried here.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The configuration that `LDTILECFG` takes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles are whole.
static WHOLE: Configuration = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        (row_bytes[tile], rows[tile]) = (ROW as u16, SIDE as u8);
        tile += 1;
    }
    Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes,
        rows,
    }
};

/// Configures the tiles of this thread.
///
/// # Safety
/// [`is_usable`].
#[inline(always)]
pub(super) unsafe fn configure() {
    // SAFETY: guaranteed by the caller; the configuration is valid.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly, preserves_flags)) };
}

/// Returns the tiles of this thread to their initial state.
///
/// # Safety
/// [`is_usable`].
#[inline(always)]
pub(super) unsafe fn release() {
    // SAFETY: guaranteed by the caller.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// A kernel: loads the sums or zeroes them, multiplies tap by tap and tile by tile, and stores the sums.
///
/// The tiles 0 to 3 are sums, row after row; 4 and 5 are of the left, 6 and 7 of the right.
macro_rules! kernel {
    ($product:ident, load: [$($load:literal),*], multiply: [$($multiply:literal),*], store: [$($store:literal),*]) => {
        asm!(
            "mov {b0}, [{product} + {sums}]",
            "lea {b1}, [{b0} + {sums_step} * 8]",
            "lea {b1}, [{b1} + {sums_step} * 8]",
            "cmp byte ptr [{product} + {add}], 0",
            "jne 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 3f",
            "2:",
            $($load,)*
            // A tap.
            "3:",
            "mov {b1}, [{taps}]",
            "add {taps}, 8",
            "mov {b0}, [{product} + {right}]",
            "lea {b0}, [{b0} + {b1} * 4]",
            "mov {counter}, [{product} + {right} + 8]",
            "lea {b1}, [{counter} + {b1} * 4]",
            "mov {counter}, {depth}",
            // A tile of each side.
            "4:",
            $($multiply,)*
            "lea {b0}, [{b0} + {right_step} * 8]",
            "lea {b0}, [{b0} + {right_step} * 8]",
            "lea {b1}, [{b1} + {right_step} * 8]",
            "lea {b1}, [{b1} + {right_step} * 8]",
            "add {a0}, {tile}",
            "add {a1}, {tile}",
            "dec {counter}",
            "jnz 4b",
            "cmp {taps}, {taps_end}",
            "jne 3b",
            "mov {b0}, [{product} + {sums}]",
            "lea {b1}, [{b0} + {sums_step} * 8]",
            "lea {b1}, [{b1} + {sums_step} * 8]",
            $($store,)*
            product = in(reg) $product,
            a0 = inout(reg) $product.left => _,
            a1 = inout(reg) $product.left.wrapping_add($product.left_block) => _,
            row = in(reg) ROW,
            right_step = in(reg) 4 * $product.right_step,
            sums_step = in(reg) 4 * $product.sums_step,
            taps = inout(reg) $product.taps.as_ptr() => _,
            taps_end = in(reg) $product.taps.as_ptr_range().end,
            depth = in(reg) $product.depth,
            counter = out(reg) _,
            b0 = out(reg) _,
            b1 = out(reg) _,
            tile = const 4 * TILE,
            sums = const offset_of!(TileProduct<'_>, sums),
            add = const offset_of!(TileProduct<'_>, add),
            right = const offset_of!(TileProduct<'_>, right),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// The product of `ROWS` by `COLUMNS` blocks of the sums, 1 or 2 of each.
///
/// # Safety
/// [`is_usable`], the tiles of this thread are configured, the memory is as [`TileProduct`] states, and no other
/// thread touches the sums.
#[inline(always)]
pub(super) unsafe fn multiply<const ROWS: usize, const COLUMNS: usize>(product: &TileProduct<'_>) {
    assert!(
        product.depth > 0 && !product.taps.is_empty(),
        "a product of no tiles. This is a bug."
    );
    // SAFETY: guaranteed by the caller. Pointers to blocks that a kernel has not are not read through.
    unsafe {
        match (ROWS, COLUMNS) {
            (1, 1) => kernel!(
                product,
                load: ["tileloadd tmm0, [{b0} + {sums_step}]"],
                multiply: [
                    "tileloadd tmm4, [{a0} + {row}]",
                    "tileloadd tmm6, [{b0} + {right_step}]",
                    "tdpbf16ps tmm0, tmm4, tmm6"
                ],
                store: ["tilestored [{b0} + {sums_step}], tmm0"]
            ),
            (1, 2) => kernel!(
                product,
                load: ["tileloadd tmm0, [{b0} + {sums_step}]", "tileloadd tmm1, [{b0} + {sums_step} + 64]"],
                multiply: [
                    "tileloadd tmm4, [{a0} + {row}]",
                    "tileloadd tmm6, [{b0} + {right_step}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b1} + {right_step}]",
                    "tdpbf16ps tmm1, tmm4, tmm7"
                ],
                store: ["tilestored [{b0} + {sums_step}], tmm0", "tilestored [{b0} + {sums_step} + 64], tmm1"]
            ),
            (2, 1) => kernel!(
                product,
                load: ["tileloadd tmm0, [{b0} + {sums_step}]", "tileloadd tmm2, [{b1} + {sums_step}]"],
                multiply: [
                    "tileloadd tmm6, [{b0} + {right_step}]",
                    "tileloadd tmm4, [{a0} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{a1} + {row}]",
                    "tdpbf16ps tmm2, tmm5, tmm6"
                ],
                store: ["tilestored [{b0} + {sums_step}], tmm0", "tilestored [{b1} + {sums_step}], tmm2"]
            ),
            (2, 2) => kernel!(
                product,
                load: [
                    "tileloadd tmm0, [{b0} + {sums_step}]",
                    "tileloadd tmm1, [{b0} + {sums_step} + 64]",
                    "tileloadd tmm2, [{b1} + {sums_step}]",
                    "tileloadd tmm3, [{b1} + {sums_step} + 64]"
                ],
                multiply: [
                    "tileloadd tmm4, [{a0} + {row}]",
                    "tileloadd tmm6, [{b0} + {right_step}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b1} + {right_step}]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a1} + {row}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7"
                ],
                store: [
                    "tilestored [{b0} + {sums_step}], tmm0",
                    "tilestored [{b0} + {sums_step} + 64], tmm1",
                    "tilestored [{b1} + {sums_step}], tmm2",
                    "tilestored [{b1} + {sums_step} + 64], tmm3"
                ]
            ),
            _ => panic!("a product of other blocks than there are tiles for. This is a bug."),
        }
    }
}
