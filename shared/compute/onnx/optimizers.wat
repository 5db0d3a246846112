;; Updates of flat float32 vectors, four elements at a time. All pointers are byte offsets into the imported memory, all
;; lengths are in bytes and multiples of 16. optimizers-wasm.ts holds this module's bytes and says how to make them again.
(module
  (import "arena" "memory" (memory 1))

  ;; parameter -= rate * gradient
  (func (export "sgd") (param $parameter i32) (param $gradient i32) (param $length i32) (param $rate f32)
    (local $offset i32) (local $rates v128)
    (local.set $rates (f32x4.splat (local.get $rate)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $offset) (local.get $length)))
      (v128.store (i32.add (local.get $parameter) (local.get $offset))
        (f32x4.sub (v128.load (i32.add (local.get $parameter) (local.get $offset)))
          (f32x4.mul (v128.load (i32.add (local.get $gradient) (local.get $offset))) (local.get $rates))))
      (local.set $offset (i32.add (local.get $offset) (i32.const 16)))
      (br $next))))

  ;; velocity = momentum * velocity + gradient; parameter -= rate * velocity
  (func (export "momentum") (param $parameter i32) (param $gradient i32) (param $velocity i32) (param $length i32) (param $rate f32) (param $momentum f32)
    (local $offset i32) (local $rates v128) (local $momenta v128) (local $v v128)
    (local.set $rates (f32x4.splat (local.get $rate)))
    (local.set $momenta (f32x4.splat (local.get $momentum)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $offset) (local.get $length)))
      (local.set $v (f32x4.add
        (f32x4.mul (v128.load (i32.add (local.get $velocity) (local.get $offset))) (local.get $momenta))
        (v128.load (i32.add (local.get $gradient) (local.get $offset)))))
      (v128.store (i32.add (local.get $velocity) (local.get $offset)) (local.get $v))
      (v128.store (i32.add (local.get $parameter) (local.get $offset))
        (f32x4.sub (v128.load (i32.add (local.get $parameter) (local.get $offset))) (f32x4.mul (local.get $v) (local.get $rates))))
      (local.set $offset (i32.add (local.get $offset) (i32.const 16)))
      (br $next))))

  ;; first = beta1 * first + (1 - beta1) * gradient; second = beta2 * second + (1 - beta2) * gradient^2
  ;; parameter -= rate * first / (sqrt(second) + epsilon), the bias corrections being part of rate and epsilon
  (func (export "adam") (param $parameter i32) (param $gradient i32) (param $first i32) (param $second i32) (param $length i32)
      (param $rate f32) (param $beta1 f32) (param $beta2 f32) (param $epsilon f32)
    (local $offset i32) (local $rates v128) (local $betas1 v128) (local $betas2 v128) (local $rest1 v128) (local $rest2 v128) (local $epsilons v128)
    (local $g v128) (local $m v128) (local $v v128)
    (local.set $rates (f32x4.splat (local.get $rate)))
    (local.set $betas1 (f32x4.splat (local.get $beta1)))
    (local.set $betas2 (f32x4.splat (local.get $beta2)))
    (local.set $rest1 (f32x4.splat (f32.sub (f32.const 1) (local.get $beta1))))
    (local.set $rest2 (f32x4.splat (f32.sub (f32.const 1) (local.get $beta2))))
    (local.set $epsilons (f32x4.splat (local.get $epsilon)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $offset) (local.get $length)))
      (local.set $g (v128.load (i32.add (local.get $gradient) (local.get $offset))))
      (local.set $m (f32x4.add
        (f32x4.mul (v128.load (i32.add (local.get $first) (local.get $offset))) (local.get $betas1))
        (f32x4.mul (local.get $g) (local.get $rest1))))
      (local.set $v (f32x4.add
        (f32x4.mul (v128.load (i32.add (local.get $second) (local.get $offset))) (local.get $betas2))
        (f32x4.mul (f32x4.mul (local.get $g) (local.get $g)) (local.get $rest2))))
      (v128.store (i32.add (local.get $first) (local.get $offset)) (local.get $m))
      (v128.store (i32.add (local.get $second) (local.get $offset)) (local.get $v))
      (v128.store (i32.add (local.get $parameter) (local.get $offset))
        (f32x4.sub (v128.load (i32.add (local.get $parameter) (local.get $offset)))
          (f32x4.div (f32x4.mul (local.get $m) (local.get $rates)) (f32x4.add (f32x4.sqrt (local.get $v)) (local.get $epsilons)))))
      (local.set $offset (i32.add (local.get $offset) (i32.const 16)))
      (br $next))))

  ;; target += factor * source
  (func (export "addScaled") (param $target i32) (param $source i32) (param $length i32) (param $factor f32)
    (local $offset i32) (local $factors v128)
    (local.set $factors (f32x4.splat (local.get $factor)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $offset) (local.get $length)))
      (v128.store (i32.add (local.get $target) (local.get $offset))
        (f32x4.add (v128.load (i32.add (local.get $target) (local.get $offset)))
          (f32x4.mul (v128.load (i32.add (local.get $source) (local.get $offset))) (local.get $factors))))
      (local.set $offset (i32.add (local.get $offset) (i32.const 16)))
      (br $next))))

  ;; target *= factor
  (func (export "scale") (param $target i32) (param $length i32) (param $factor f32)
    (local $offset i32) (local $factors v128)
    (local.set $factors (f32x4.splat (local.get $factor)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $offset) (local.get $length)))
      (v128.store (i32.add (local.get $target) (local.get $offset))
        (f32x4.mul (v128.load (i32.add (local.get $target) (local.get $offset))) (local.get $factors)))
      (local.set $offset (i32.add (local.get $offset) (i32.const 16)))
      (br $next))))

  ;; sum of source^2 in float64: elements 0 and 1 of each four in one pair of sums, 2 and 3 in the other
  (func (export "sumOfSquares") (param $source i32) (param $length i32) (result f64)
    (local $offset i32) (local $four v128) (local $pair v128) (local $low v128) (local $high v128)
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $offset) (local.get $length)))
      (local.set $four (v128.load (i32.add (local.get $source) (local.get $offset))))
      (local.set $pair (f64x2.promote_low_f32x4 (local.get $four)))
      (local.set $low (f64x2.add (local.get $low) (f64x2.mul (local.get $pair) (local.get $pair))))
      (local.set $pair (f64x2.promote_low_f32x4 (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7 (local.get $four) (local.get $four))))
      (local.set $high (f64x2.add (local.get $high) (f64x2.mul (local.get $pair) (local.get $pair))))
      (local.set $offset (i32.add (local.get $offset) (i32.const 16)))
      (br $next)))
    (local.set $low (f64x2.add (local.get $low) (local.get $high)))
    (f64.add (f64x2.extract_lane 0 (local.get $low)) (f64x2.extract_lane 1 (local.get $low)))))
