static void bench() {}
