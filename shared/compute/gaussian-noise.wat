;; The noise of gaussian-noise.ts for numbers whose first word decides them, two at a time. One page of the imported memory, offsets in bytes:
;; 0 `limits` (256 i32), 1024 `widths` (256 f64), 4096 the words (4096 i32), 20480 the sums (4096 f32), 36864 positions left undecided (4096 i32).
;; gaussian-noise-wasm.ts holds this module's bytes and says how to make them again.
(module
  (import "noise" "memory" (memory 1))

  ;; Of the first `count` sums; of an odd number, one more is overwritten. Returns how many positions are undecided; their sums are overwritten too.
  (func (export "release") (param $count i32) (param $cells f64) (param $noiseCells f64) (param $scale f64) (result i32)
    (local $i i32) (local $undecided i32) (local $decided i32)
    (local $words v128) (local $low i32) (local $high i32) (local $widths v128) (local $limits v128) (local $places v128) (local $x v128) (local $sums v128) (local $first v128)
    (local $allCells v128) (local $allNoise v128) (local $allScale v128) (local $ones v128) (local $halves v128)
    (local.set $allCells (f64x2.splat (local.get $cells)))
    (local.set $allNoise (f64x2.splat (local.get $noiseCells)))
    (local.set $allScale (f64x2.splat (local.get $scale)))
    (local.set $ones (f64x2.splat (f64.const 1)))
    (local.set $halves (f64x2.splat (f64.const 0.5)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
      (local.set $words (v128.load64_zero offset=4096 (i32.shl (local.get $i) (i32.const 2))))
      (local.set $low (i32.and (i32x4.extract_lane 0 (local.get $words)) (i32.const 255)))
      (local.set $high (i32.and (i32x4.extract_lane 1 (local.get $words)) (i32.const 255)))
      (local.set $words (i32x4.shr_s (local.get $words) (i32.const 8)))
      (local.set $limits (v128.load32_lane 1 (i32.shl (local.get $high) (i32.const 2)) (v128.load32_zero (i32.shl (local.get $low) (i32.const 2)))))
      (local.set $widths (v128.load64_lane offset=1024 1 (i32.shl (local.get $high) (i32.const 3)) (v128.load64_zero offset=1024 (i32.shl (local.get $low) (i32.const 3)))))
      (local.set $places (f64x2.convert_low_i32x4_s (local.get $words)))
      (local.set $sums (f64x2.mul
        (f64x2.promote_low_f32x4 (v128.load64_zero offset=20480 (i32.shl (local.get $i) (i32.const 2))))
        (local.get $allCells)))
      ;; the cells of both ends of what further bits could give
      (local.set $x (f64x2.mul (f64x2.mul (local.get $places) (local.get $widths)) (local.get $allNoise)))
      (local.set $first (f64x2.floor (f64x2.add (f64x2.add (local.get $sums) (local.get $x)) (local.get $halves))))
      (local.set $x (f64x2.mul (f64x2.mul (f64x2.add (local.get $places) (local.get $ones)) (local.get $widths)) (local.get $allNoise)))
      (local.set $decided (i64x2.bitmask (v128.and
        (f64x2.eq (local.get $first) (f64x2.floor (f64x2.add (f64x2.add (local.get $sums) (local.get $x)) (local.get $halves))))
        (i64x2.extend_low_i32x4_s (i32x4.lt_s (i32x4.abs (local.get $words)) (local.get $limits))))))
      (v128.store64_lane offset=20480 0 (i32.shl (local.get $i) (i32.const 2))
        (f32x4.demote_f64x2_zero (f64x2.mul (local.get $first) (local.get $allScale))))
      (if (i32.ne (local.get $decided) (i32.const 3)) (then
        (if (i32.eqz (i32.and (local.get $decided) (i32.const 1))) (then
          (i32.store offset=36864 (i32.shl (local.get $undecided) (i32.const 2)) (local.get $i))
          (local.set $undecided (i32.add (local.get $undecided) (i32.const 1)))))
        (if (i32.and (i32.eqz (i32.and (local.get $decided) (i32.const 2))) (i32.lt_u (i32.add (local.get $i) (i32.const 1)) (local.get $count))) (then
          (i32.store offset=36864 (i32.shl (local.get $undecided) (i32.const 2)) (i32.add (local.get $i) (i32.const 1)))
          (local.set $undecided (i32.add (local.get $undecided) (i32.const 1)))))))
      (local.set $i (i32.add (local.get $i) (i32.const 2)))
      (br $next)))
    (local.get $undecided)))
