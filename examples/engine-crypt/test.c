/* SPDX-License-Identifier: MIT */
/*
 * test.c - plays ublkzc for an engine: loads it as ublkzc does, and does its I/O with pread and
 * pwrite, in pieces and interrupted, so that it needs no device, no ring and no privilege.
 */
#undef NDEBUG
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <ublkzc/engine.h>
#include <unistd.h>

#define DISK (1U << 20)
#define MAX_IO 65536U
#define DEPTH 4U

static const struct ublkzc_engine *engine;
static struct ublkzc_target target;
static struct ublkzc_queue queue = { .target = &target };
static struct io_uring_sqe sqe;
static int queued, completed, result;
static unsigned int most = MAX_IO; /* bytes that the storage does at once */

/* ---- ublkzc ---- */

static void host_complete(struct ublkzc_request *rq, int res)
{
	(void)rq;
	completed++;
	result = res;
}

static struct io_uring_sqe *host_sqe(struct ublkzc_request *rq)
{
	(void)rq;
	assert(!queued++);
	memset(&sqe, 0, sizeof(sqe));
	return &sqe;
}

static void host_log(enum ublkzc_level level, const char *format, va_list args)
{
	(void)level;
	vprintf(format, args);
	printf("\n");
}

static const struct ublkzc_host host = {
	.version = UBLKZC_ENGINE_VERSION,
	.size = sizeof(host),
	.complete = host_complete,
	.sqe = host_sqe,
	.log = host_log,
};

static int storage(void)
{
	unsigned int len = sqe.len < most ? sqe.len : most;
	void *data = (void *)(uintptr_t)sqe.addr;

	assert(sqe.flags == IOSQE_FIXED_FILE && sqe.fd == UBLKZC_FILE);
	if (sqe.opcode == IORING_OP_FSYNC)
		return fdatasync(target.fd);
	if (sqe.opcode == IORING_OP_READ)
		return (int)pread(target.fd, data, len, (off_t)sqe.off);
	assert(sqe.opcode == IORING_OP_WRITE);
	return (int)pwrite(target.fd, data, len, (off_t)sqe.off);
}

/* One request, its data in @nr pieces; what it ended with. */
static int do_request(enum ublkzc_op op, uint64_t offset, void *data, uint32_t len, unsigned int nr)
{
	struct iovec iov[4];
	struct ublkzc_request rq = {
		.queue = &queue,
		.op = op,
		.tag = (uint32_t)rand() % DEPTH,
		.offset = offset,
		.len = len,
		.iov = iov,
		.nr_iov = data ? nr : 0,
	};
	int interrupted = 0;

	for (unsigned int i = 0; i < nr; i++) {
		uint32_t begin = len / 512 * i / nr * 512, end = len / 512 * (i + 1) / nr * 512;

		iov[i] = (struct iovec){ (char *)data + begin, end - begin };
	}
	completed = 0;
	engine->submit(&rq);
	while (queued) {
		int res = !interrupted++ ? -EINTR : storage();

		queued = 0;
		engine->cqe(&rq, res);
	}
	assert(completed == 1);
	return result;
}

/* ---- tests ---- */

static void *load(const char *path)
{
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const struct ublkzc_module *module;

	if (!handle)
		printf("%s\n", dlerror());
	assert(handle);
	module = dlsym(handle, "ublkzc_module");
	assert(module && module->version == UBLKZC_ENGINE_VERSION);
	engine = module->engine;
	*module->host = &host;
	return handle;
}

static void what_is_written_is_read(void)
{
	unsigned char wrote[MAX_IO], got[MAX_IO], raw[MAX_IO];

	for (unsigned int turn = 0; turn < 500; turn++) {
		uint32_t len = 512 * (1 + (uint32_t)rand() % (MAX_IO / 512));
		uint64_t offset = 512 * ((uint64_t)rand() % ((DISK - len) / 512 + 1));
		unsigned int nr = 1 + (unsigned int)rand() % (len / 512 < 4 ? 1 : 4);

		most = rand() % 2 ? MAX_IO : 1 + (unsigned int)rand() % 4096;
		for (uint32_t i = 0; i < len; i++)
			wrote[i] = (unsigned char)rand();
		assert(do_request(UBLKZC_WRITE, offset, wrote, len, nr) == 0);
		assert(do_request(UBLKZC_FLUSH, 0, NULL, 0, 0) == 0);
		memset(got, 0, len);
		assert(do_request(UBLKZC_READ, offset, got, len, 1) == 0);
		assert(memcmp(got, wrote, len) == 0);
		assert(pread(target.fd, raw, len, (off_t)offset) == (ssize_t)len);
		for (uint32_t at = 0; at < len; at += 512)
			assert(memcmp(raw + at, wrote + at, 512) != 0);
	}
}

/* IEEE 1619's way, done a second time by hand: sector 3 with the tweak 3. */
static void the_file_is_aes_xts_plain64(const unsigned char *key)
{
	unsigned char plain[512], raw[512], expected[512], tweak[16] = { 3 };
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;

	memset(plain, 'x', sizeof(plain));
	assert(do_request(UBLKZC_WRITE, 3 * 512, plain, 512, 1) == 0);
	assert(EVP_EncryptInit_ex(ctx, EVP_aes_256_xts(), NULL, key, tweak) == 1);
	assert(EVP_EncryptUpdate(ctx, expected, &n, plain, 512) == 1 && n == 512);
	EVP_CIPHER_CTX_free(ctx);
	assert(pread(target.fd, raw, 512, 3 * 512) == 512);
	assert(memcmp(raw, expected, 512) == 0);
}

static void what_cannot_be_done_is_an_error(void)
{
	unsigned char data[4096] = { 0 };

	assert(do_request(UBLKZC_DISCARD, 0, NULL, 4096, 0) == -EOPNOTSUPP);
	assert(ftruncate(target.fd, 4096 + 100) == 0);
	assert(do_request(UBLKZC_READ, 4096, data, 4096, 1) == -EIO);
	assert(ftruncate(target.fd, DISK) == 0);
}

static void bad_keys_are_refused(struct ublkzc_setting *key, const char *dir)
{
	char path[256], why[256] = "";

	snprintf(path, sizeof(path), "%s/missing", dir);
	key->value = path;
	assert(engine->check(&target, why, sizeof(why)) == -ENOENT && strstr(why, path));
	snprintf(path, sizeof(path), "%s/disk", dir);
	assert(engine->check(&target, why, sizeof(why)) == -EINVAL && strstr(why, "takes 64"));
	target.nr_settings = 0;
	assert(engine->check(&target, why, sizeof(why)) == -EINVAL && strstr(why, "key=FILE"));
	target.nr_settings = 1;
	snprintf(path, sizeof(path), "%s/weak", dir);
	assert(engine->open(&target) == -EINVAL);
	engine->close(&target);
}

static void make_file(const char *dir, const char *name, const void *data, size_t len, off_t size,
		      char *ret)
{
	int fd;

	sprintf(ret, "%s/%s", dir, name);
	fd = open(ret, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert(fd >= 0 && write(fd, data, len) == (ssize_t)len && ftruncate(fd, size) == 0);
	close(fd);
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/engine-crypt.XXXXXX", disk[64], key[64], weak[64], why[256];
	struct ublkzc_setting setting = { "key", key };
	unsigned char bytes[64];

	assert(argc == 2 && mkdtemp(dir));
	srand(1);
	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)rand();
	make_file(dir, "disk", NULL, 0, DISK, disk);
	make_file(dir, "key", bytes, 64, 64, key);
	make_file(dir, "weak", "", 0, 64, weak);
	load(argv[1]);
	assert(strcmp(engine->name, "crypt") == 0 && engine->flags & UBLKZC_TOUCHES_DATA);
	target = (struct ublkzc_target){
		.path = disk,
		.settings = &setting,
		.nr_settings = 1,
		.nr_queues = 1,
		.depth = DEPTH,
		.max_io = MAX_IO,
		.fd = -1,
	};
	assert(engine->check(&target, why, sizeof(why)) == 0);
	assert(engine->open(&target) == 0);
	assert(target.size == DISK && target.block_size == 512 && target.memory_align == 512);
	assert(engine->queue_open(&queue) == 0);
	what_is_written_is_read();
	the_file_is_aes_xts_plain64(bytes);
	what_cannot_be_done_is_an_error();
	engine->queue_close(&queue);
	engine->close(&target);
	bad_keys_are_refused(&setting, dir);
	unlink(disk);
	unlink(key);
	unlink(weak);
	rmdir(dir);
	puts("all is well");
	return 0;
}
