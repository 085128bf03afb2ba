/* SPDX-License-Identifier: MIT */
/*
 * crypt.c - an engine for ublkzc: a file that is encrypted with AES-256-XTS.
 *
 *   ublkzc add -t crypt -o key=KEYFILE disk.img
 *
 * The tweak is the number of the 512-byte sector, so that the file is what dm-crypt calls
 * aes-xts-plain64: either can read what the other has written.
 *
 * There is no copy but the cipher itself: it reads a client's memory and writes ours, or the
 * other way round.  Ours is one buffer for each request that can be under way.
 *
 *   WRITE: client's memory --encrypt--> buffer --io_uring--> file
 *   READ:  file --io_uring--> buffer --decrypt--> client's memory
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <ublkzc/engine.h>
#include <unistd.h>

#define KEY_SIZE 64U /* bytes: of the data, and of the tweak */
#define SECTOR 512U  /* bytes that are encrypted together */
#define DSYNC 0x2    /* RWF_DSYNC */

/* target->priv */
struct crypt {
	unsigned char key[KEY_SIZE];
};

/* queue->priv */
struct crypt_queue {
	EVP_CIPHER_CTX *encrypt, *decrypt;
	unsigned char *buffers; /* max_io for each tag */
};

static int fail(int err, const char *what, const char *of)
{
	ublkzc_log(UBLKZC_LOG_ERROR, "%s %s: %s", what, of, strerror(-err));
	return err;
}

/* ---- the target, on the control thread ---- */

static int crypt_check(const struct ublkzc_target *target, char *why, size_t size)
{
	const char *key = ublkzc_setting(target, "key");
	struct stat st;

	if (!key) {
		snprintf(why, size, "engine crypt needs -o key=FILE, a file of %u random bytes",
			 KEY_SIZE);
		return -EINVAL;
	}
	if (stat(key, &st) < 0) {
		int ret = -errno;

		snprintf(why, size, "-o key=%s: %s", key, strerror(-ret));
		return ret;
	}
	if (st.st_size != KEY_SIZE) {
		snprintf(why, size, "-o key=%s: it has %lld bytes; AES-256-XTS takes %u", key,
			 (long long)st.st_size, KEY_SIZE);
		return -EINVAL;
	}
	return 0;
}

/* XTS with two equal halves is not safe, and OpenSSL refuses it. */
static int read_key(struct crypt *c, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return fail(-errno, "key", path);
	n = read(fd, c->key, KEY_SIZE);
	close(fd);
	if (n != KEY_SIZE)
		return fail(n < 0 ? -errno : -EINVAL, "key", path);
	if (CRYPTO_memcmp(c->key, c->key + KEY_SIZE / 2, KEY_SIZE / 2) == 0)
		return fail(-EINVAL, "its halves are the same: key", path);
	return 0;
}

static int open_file(struct ublkzc_target *t)
{
	struct stat st;

	/* A successor goes on with the file that the dead server had open. */
	if (t->fd < 0)
		t->fd = open(t->path, (t->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (t->fd < 0 || fstat(t->fd, &st) < 0)
		return fail(-errno, "open", t->path);
	if (!S_ISREG(st.st_mode))
		return fail(-EINVAL, "not a regular file:", t->path);
	if (flock(t->fd, (t->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0)
		return fail(-errno, "another server has", t->path);
	t->block_size = t->block_size ? t->block_size : SECTOR;
	t->size = (uint64_t)st.st_size - (uint64_t)st.st_size % t->block_size;
	return t->size ? 0 : fail(-EINVAL, "smaller than a block:", t->path);
}

static int crypt_open(struct ublkzc_target *t)
{
	const char *key = ublkzc_setting(t, "key");
	struct crypt *c = calloc(1, sizeof(*c));
	int ret;

	t->priv = c;
	if (!c)
		return fail(-ENOMEM, "open", t->path);
	ret = key ? read_key(c, key) : fail(-EINVAL, "no -o key=FILE for", t->path);
	if (!ret)
		ret = open_file(t);
	/* So that no sector is in two pieces of memory. */
	t->memory_align = SECTOR;
	t->volatile_cache = true;
	return ret;
}

static int crypt_grow(struct ublkzc_target *t, uint64_t *size)
{
	struct stat st;

	if (*size)
		return -EINVAL; /* the file is its owner's to extend */
	if (fstat(t->fd, &st) < 0)
		return -errno;
	*size = (uint64_t)st.st_size - (uint64_t)st.st_size % t->block_size;
	return 0;
}

static void crypt_close(struct ublkzc_target *t)
{
	struct crypt *c = t->priv;

	if (c)
		OPENSSL_cleanse(c->key, KEY_SIZE);
	free(c);
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

/* ---- a queue, on its thread ---- */

static EVP_CIPHER_CTX *new_context(const struct crypt *c, int encrypt)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	if (ctx && EVP_CipherInit_ex(ctx, EVP_aes_256_xts(), NULL, c->key, NULL, encrypt) == 1)
		return ctx;
	EVP_CIPHER_CTX_free(ctx);
	return NULL;
}

static void free_queue(struct crypt_queue *cq)
{
	EVP_CIPHER_CTX_free(cq->encrypt);
	EVP_CIPHER_CTX_free(cq->decrypt);
	free(cq->buffers);
	free(cq);
}

static int crypt_queue_open(struct ublkzc_queue *q)
{
	const struct ublkzc_target *t = q->target;
	struct crypt_queue *cq = calloc(1, sizeof(*cq));

	if (!cq)
		return -ENOMEM;
	cq->encrypt = new_context(t->priv, 1);
	cq->decrypt = new_context(t->priv, 0);
	cq->buffers = malloc((size_t)t->depth * t->max_io);
	q->priv = cq;
	if (cq->encrypt && cq->decrypt && cq->buffers)
		return 0;
	free_queue(cq); /* there is no queue_close() after this */
	return -ENOMEM;
}

static void crypt_queue_close(struct ublkzc_queue *q)
{
	free_queue(q->priv);
}

/* ---- requests ---- */

static unsigned char *buffer_of(const struct ublkzc_request *rq)
{
	const struct crypt_queue *cq = rq->queue->priv;

	return cq->buffers + (size_t)rq->tag * rq->queue->target->max_io;
}

/* @len bytes, whole sectors, which are on the disk from @offset. */
static int cipher(EVP_CIPHER_CTX *ctx, uint64_t offset, const unsigned char *from,
		  unsigned char *to, size_t len)
{
	for (; len; len -= SECTOR, from += SECTOR, to += SECTOR, offset += SECTOR) {
		unsigned char tweak[16] = { 0 };
		uint64_t sector = offset / SECTOR;
		int n;

		for (unsigned int i = 0; i < 8; i++)
			tweak[i] = (unsigned char)(sector >> 8 * i);
		if (EVP_CipherInit_ex(ctx, NULL, NULL, NULL, tweak, -1) != 1 ||
		    EVP_CipherUpdate(ctx, to, &n, from, (int)SECTOR) != 1)
			return -EIO;
	}
	return 0;
}

/* Between the request's data, wherever it is, and its buffer. */
static int cipher_all(const struct ublkzc_request *rq)
{
	const struct crypt_queue *cq = rq->queue->priv;
	unsigned char *buffer = buffer_of(rq);
	size_t done = 0;
	int ret = 0;

	for (unsigned int i = 0; !ret && i < rq->nr_iov; i++) {
		unsigned char *data = rq->iov[i].iov_base;
		size_t len = rq->iov[i].iov_len;

		if (rq->op == UBLKZC_WRITE)
			ret = cipher(cq->encrypt, rq->offset + done, data, buffer + done, len);
		else
			ret = cipher(cq->decrypt, rq->offset + done, buffer + done, data, len);
		done += len;
	}
	return ret;
}

static void queue_io(struct ublkzc_request *rq)
{
	struct io_uring_sqe *sqe = ublkzc_sqe(rq);

	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = UBLKZC_FILE;
	if (rq->op == UBLKZC_FLUSH) {
		sqe->opcode = IORING_OP_FSYNC;
		sqe->fsync_flags = IORING_FSYNC_DATASYNC;
		return;
	}
	sqe->opcode = rq->op == UBLKZC_READ ? IORING_OP_READ : IORING_OP_WRITE;
	sqe->addr = (uintptr_t)buffer_of(rq) + rq->done;
	sqe->len = rq->len - rq->done;
	sqe->off = rq->offset + rq->done;
	if (rq->op == UBLKZC_WRITE && rq->fua)
		sqe->rw_flags = DSYNC;
}

static void crypt_submit(struct ublkzc_request *rq)
{
	int ret = rq->op == UBLKZC_WRITE ? cipher_all(rq) : 0;

	if (rq->op != UBLKZC_READ && rq->op != UBLKZC_WRITE && rq->op != UBLKZC_FLUSH)
		ret = -EOPNOTSUPP;
	if (ret)
		ublkzc_complete(rq, ret);
	else
		queue_io(rq);
}

static void crypt_cqe(struct ublkzc_request *rq, int res)
{
	if (res == -EINTR || res == -EAGAIN) {
		queue_io(rq);
		return;
	}
	if (res < 0 || rq->op == UBLKZC_FLUSH) {
		ublkzc_complete(rq, res);
		return;
	}
	rq->done += (uint32_t)res;
	if (res && rq->done < rq->len)
		queue_io(rq); /* the rest of it */
	else if (rq->done < rq->len)
		ublkzc_complete(rq, -EIO); /* the file has been cut short */
	else
		ublkzc_complete(rq, rq->op == UBLKZC_READ ? cipher_all(rq) : 0);
}

static const struct ublkzc_option options[] = {
	{ "key", "FILE", "64 random bytes, for AES-256-XTS; required" },
	{ NULL, NULL, NULL },
};

/*
 * No fence: all I/O is by the queues' rings, which the driver waits for before another server
 * can take over.
 */
static const struct ublkzc_engine engine = {
	.size = sizeof(engine),
	.flags = UBLKZC_TOUCHES_DATA,
	.name = "crypt",
	.summary = "a file, encrypted with AES-256-XTS as dm-crypt's aes-xts-plain64",
	.argument = "FILE",
	.options = options,
	.check = crypt_check,
	.open = crypt_open,
	.grow = crypt_grow,
	.close = crypt_close,
	.queue_open = crypt_queue_open,
	.queue_close = crypt_queue_close,
	.submit = crypt_submit,
	.cqe = crypt_cqe,
};

UBLKZC_ENGINE(engine);
