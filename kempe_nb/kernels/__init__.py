"""Operations with kernels: one module for one operation, its definition and its public function."""
