/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <string.h>

#include "common/log.h"
#include "server/cli/add_options.h"
#include "server/targets/engines.h"
#include "tests/unit/cmocka_all.h"

static const struct command add = { .name = "add", .operands = "[PATH]", ADD_FLAGS };
const struct command *const commands[] = { &add, NULL };

/* Splits @line at spaces and parses it. */
static int parse(const char *line, struct options *o)
{
	static char words[256];
	char *argv[32] = { (char *)"add" };
	int argc = 1;

	strcpy(words, line);
	for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	return add_options_parse(&add, argc, argv, o);
}

static void defaults(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(parse("-t file /a/b", &o), 0);
	assert_ptr_equal(o.engine, &engine_file);
	assert_string_equal(o.path, "/a/b");
	assert_int_equal(o.device, -1);
	assert_int_equal(o.nr_queues, 1);
	assert_int_equal(o.depth, 128);
	assert_int_equal(o.max_io, 1 << 20);
	assert_false(o.read_only || o.nr_settings || o.copy_only || o.merges);
}

static void everything_at_once(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(
		parse("--target mem --size 2G -n 7 -q 4 -d 64 --block-size 4096 --max-io 64k "
		      "-r --copy-only --merges --shm-file /x --shm-file /y --max-clients 3 "
		      "--max-buffers 4 --max-client-bytes 1M --max-bytes 2M",
		      &o),
		0);
	assert_ptr_equal(o.engine, &engine_mem);
	assert_int_equal(o.size, 2ULL << 30);
	assert_int_equal(o.device, 7);
	assert_int_equal(o.nr_queues, 4);
	assert_int_equal(o.depth, 64);
	assert_int_equal(o.block_size, 4096);
	assert_int_equal(o.max_io, 65536);
	assert_true(o.read_only && o.copy_only && o.merges);
	assert_int_equal(o.nr_shm_files, 2);
	assert_string_equal(o.shm_files[1], "/y");
	assert_int_equal(o.max_clients, 3);
	assert_int_equal(o.max_buffers, 4);
	assert_int_equal(o.max_client_bytes, 1 << 20);
	assert_int_equal(o.max_bytes, 2 << 20);
}

static void what_is_wrong_is_refused_and_nothing_is_changed(void **state)
{
	static const char *const lines[] = {
		"",
		"-t nothing",
		"-t file",
		"-t file a b",
		"-t null x",
		"-t mem",
		"-t null -q 0",
		"-t null -q 33",
		"-t null -d 4097",
		"-t null -d many",
		"-t null -n -1",
		"-t file --size 1G x",
		"-t mem --size 0",
		"-t mem --size 100",
		"-t null --block-size 1000",
		"-t null --max-io 5",
		"-t null --max-io 64M",
		"-t null --unknown",
		"-t null --block-size 8192",
		"-t null -t mem --size 1G",
		"-t null -q 2 -q 3",
		"-t null --buffered",
		"-t null --force",
		"-t mem --size 5000",
		"-t mem --size 1G --block-size 4096 --size 6144",
	};
	struct options before, o;

	(void)state;
	memset(&o, 0x5a, sizeof(o));
	before = o;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(parse(lines[i], &o), LINE_BAD);
		assert_memory_equal(&o, &before, sizeof(o));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(everything_at_once),
		cmocka_unit_test(what_is_wrong_is_refused_and_nothing_is_changed),
	};

	log_set_fd(open("/dev/null", O_WRONLY));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
