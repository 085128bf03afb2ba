/* SPDX-License-Identifier: MIT */
/* What is copied through a queue's own memory leaves it when the queue is idle, and not before. */
#include <sys/mman.h>
#include <string.h>

#include "server/queue/bounce.h"
#include "tests/unit/cmocka_all.h"

#define TAGS 10
#define EACH (1UL << 20)

static struct bounce b;

static int set_up(void **state)
{
	(void)state;
	return bounce_open(&b, TAGS, EACH);
}

static int tear_down(void **state)
{
	(void)state;
	bounce_close(&b);
	return 0;
}

static size_t resident(void)
{
	unsigned char in_core[TAGS * EACH / 4096];
	size_t pages = 0;

	assert_int_equal(mincore(b.base, TAGS * EACH, in_core), 0);
	for (size_t i = 0; i < sizeof(in_core); i++)
		pages += in_core[i] & 1;
	return pages * 4096;
}

static void use(unsigned int tag)
{
	memset(bounce_of(&b, tag), 7, EACH);
}

/* Times that the thread goes round. */
static unsigned int trim(void)
{
	unsigned int rounds = 1;

	while (!bounce_trim(&b, false))
		rounds++;
	return rounds;
}

static void what_is_not_used_for_a_while_is_given_back(void **state)
{
	(void)state;
	for (unsigned int tag = 0; tag < TAGS; tag++)
		use(tag);
	assert_int_equal(trim(), 1); /* nobody has asked */
	assert_true(bounce_ask(&b));
	assert_int_equal(trim(), 1); /* it was used just now */
	assert_int_equal(resident(), TAGS * EACH);
	assert_true(bounce_ask(&b));
	assert_int_equal(trim(), (TAGS * EACH + BOUNCE_STEP - 1) / BOUNCE_STEP);
	assert_int_equal(resident(), 0);
	assert_false(bounce_ask(&b)); /* there is nothing: nobody is woken */
	use(3);
	assert_true(bounce_ask(&b));
	assert_int_equal(*bounce_of(&b, 3), 7);
}

static void what_is_in_use_stays(void **state)
{
	(void)state;
	use(TAGS - 1);
	bounce_ask(&b);
	trim();
	bounce_ask(&b);
	assert_true(bounce_trim(&b, true)); /* a request that takes long */
	assert_int_equal(resident(), EACH);
	/* One comes while it is given back, in the part that is still there. */
	bounce_ask(&b);
	assert_false(bounce_trim(&b, false));
	use(TAGS - 1);
	assert_int_equal(trim(), 1);
	assert_int_equal(resident(), EACH);
	assert_int_equal(bounce_of(&b, TAGS - 1)[EACH - 1], 7);
	/* And it is not forgotten. */
	assert_true(bounce_ask(&b));
	trim();
	assert_true(bounce_ask(&b));
	trim();
	assert_int_equal(resident(), 0);
}

static void locked_memory_is_given_back_too(void **state)
{
	(void)state;
	if (mlock2(b.base, EACH, MLOCK_ONFAULT))
		skip(); /* no limit at all */
	use(0);
	bounce_ask(&b);
	trim();
	bounce_ask(&b);
	trim();
	assert_int_equal(resident(), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(what_is_not_used_for_a_while_is_given_back),
		T(what_is_in_use_stays),
		T(locked_memory_is_given_back_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
