//! Ascending lists of numbers, packed: blocks of 128 in as few bits as their differences need, the remainder in whole
//! bytes.

use std::io;

use bitpacking::{BitPacker, BitPacker4x};

use super::source::{damaged, put_number, take_bytes, take_number};

/// Packs a strictly ascending list and appends it to `out`.
pub fn pack(ranks: &[u32], out: &mut Vec<u8>) {
    let packer = BitPacker4x::new();
    let mut packed = [0; 4 * BitPacker4x::BLOCK_LEN];
    let mut before = 0;
    let blocks = ranks.chunks_exact(BitPacker4x::BLOCK_LEN);
    let rest = blocks.remainder();
    for block in blocks {
        let bits = packer.num_bits_sorted(before, block);
        let length = packer.compress_sorted(before, block, &mut packed, bits);
        out.push(bits);
        out.extend_from_slice(&packed[..length]);
        before = block[block.len() - 1];
    }
    for rank in rest {
        put_number((rank - before).into(), out);
        before = *rank;
    }
}

/// Unpacks `count` numbers and appends them to `ranks`.
pub fn unpack(mut bytes: &[u8], count: usize, ranks: &mut Vec<u32>) -> io::Result<()> {
    // A number takes at least one bit of a block or one byte, so a damaged count is detected before allocation.
    if count / BitPacker4x::BLOCK_LEN > bytes.len() {
        return Err(damaged("a list is shorter than its length field"));
    }
    let packer = BitPacker4x::new();
    let start = ranks.len();
    ranks.resize(start + count, 0);
    let mut before = 0;
    let mut blocks = ranks[start..].chunks_exact_mut(BitPacker4x::BLOCK_LEN);
    for block in &mut blocks {
        let bits = take_bytes(&mut bytes, 1)?[0];
        if bits > 32 {
            return Err(damaged("a list has too many bits"));
        }
        let packed = take_bytes(&mut bytes, BitPacker4x::compressed_block_size(bits))?;
        packer.decompress_sorted(before, packed, block, bits);
        before = block[block.len() - 1];
    }
    for rank in blocks.into_remainder() {
        let step = u32::try_from(take_number(&mut bytes)?).map_err(|_| damaged("a step is too large"))?;
        before = before.checked_add(step).ok_or_else(|| damaged("a list is not ascending"))?;
        *rank = before;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_back(steps in prop::collection::vec(1u32..5_000, 0..700)) {
            let mut at = 0;
            let ranks: Vec<u32> = steps.iter().map(|step| { at += step; at - 1 }).collect();
            let mut packed = Vec::new();
            pack(&ranks, &mut packed);
            let mut unpacked = vec![7];
            unpack(&packed, ranks.len(), &mut unpacked).unwrap();
            prop_assert_eq!(&unpacked[1..], &ranks);
        }

        #[test]
        fn damage_is_an_error_or_another_list_and_never_a_panic(bytes in any::<Vec<u8>>(), count in 0usize..1_000) {
            let _ = unpack(&bytes, count, &mut Vec::new());
        }
    }
}
